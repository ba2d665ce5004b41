// What OHIF makes of a structured report: node ohif_labels.mjs NODE_MODULES SR.dcm…
// The extension, its adapters and dcmjs are OHIF's own, from the npm registry. The application around them, which
// shows images in a browser, is replaced by the few services that the extension asks for.
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { pathToFileURL } from 'node:url';

const [, , modules, ...files] = process.argv;
console.log = console.info = console.warn = () => {};
const load = async (name, entry) =>
  import(pathToFileURL(path.join(modules, name, entry ?? JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'))).module)).href);

const core = await load('@cornerstonejs/core');
const adapters = await load('@cornerstonejs/adapters');
const dcmjs = (await import(pathToFileURL(path.join(modules, 'dcmjs', 'build', 'dcmjs.js')).href)).default;
const SOP = {
  BasicTextSR: '1.2.840.10008.5.1.4.1.1.88.11',
  EnhancedSR: '1.2.840.10008.5.1.4.1.1.88.22',
  ComprehensiveSR: '1.2.840.10008.5.1.4.1.1.88.33',
  Comprehensive3DSR: '1.2.840.10008.5.1.4.1.1.88.34',
};
const anything = () => new Proxy(class {}, { get: (_, key) => (key === '__esModule' ? true : anything()), apply: () => anything() });

function extension() {
  const shown = [];
  const tools = {
    ...anything(),
    AnnotationTool: class {},
    annotation: { state: { addAnnotation: (item) => shown.push(item) }, config: { style: {} }, locking: {} },
    addTool() {},
  };
  const ohif = {
    utils: { sopClassDictionary: SOP, sortStudyInstances: (list) => list, guid: () => 'guid', sortDisplaySetsCopy: (list) => list },
    classes: { ImageSet: class {}, MetadataProvider: { getUIDsFromImageID: (id) => ({ SOPInstanceUID: id, frameNumber: 1 }) } },
    log: console,
    ExtensionManager: class {},
    ServicesManager: class {},
    DicomMetadataStore: {},
  };
  const given = {
    '@ohif/core': { __esModule: true, default: ohif, ...ohif },
    '@cornerstonejs/adapters': adapters,
    '@cornerstonejs/core': core,
    '@cornerstonejs/tools': tools,
    '@ohif/extension-cornerstone': { Enums: { CORNERSTONE_3D_TOOLS_SOURCE_NAME: 'x', CORNERSTONE_3D_TOOLS_SOURCE_VERSION: '1' } },
    '@ohif/i18n': { __esModule: true, default: { t: (text) => text } },
    'gl-matrix': {},
    '@ohif/ui-next': {},
    '@ohif/core/src/contextProviders/SystemProvider': {},
  };
  const module = { exports: {} };
  const code = fs.readFileSync(path.join(modules, '@ohif/extension-cornerstone-dicom-sr/dist/ohif-extension-cornerstone-dicom-sr.umd.js'), 'utf8');
  vm.runInThisContext(`(function (module, exports, require) {${code}\n})`)(module, module.exports, (name) => {
    if (!(name in given)) throw Error(`the extension asks for ${name}`);
    return given[name];
  });
  return { sr: module.exports.default, shown };
}

// A plain image plane: where the patient is does not matter for a label.
const plane = { frameOfReferenceUID: '1.2.3', imagePositionPatient: [0, 0, 0], rowCosines: [1, 0, 0], columnCosines: [0, 1, 0],
  imageOrientationPatient: [1, 0, 0, 0, 1, 0], rowPixelSpacing: 1, columnPixelSpacing: 1, pixelSpacing: [1, 1], rows: 1024, columns: 1024 };
const metadata = { get: (kind) => (kind === 'imagePlaneModule' ? plane : { rows: 1024, columns: 1024 }) };
core.metaData.addProvider((kind) => metadata.get(kind), 10000);

async function read(file) {
  const bytes = fs.readFileSync(file);
  const parsed = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const instance = dcmjs.data.DicomMetaDictionary.naturalizeDataset(parsed.dict);
  instance._meta = parsed.meta;
  const { sr, shown } = extension();
  // Every image of the evidence is there, as one display set.
  const images = [instance.CurrentRequestedProcedureEvidenceSequence].flat()
    .flatMap((study) => [study.ReferencedSeriesSequence].flat())
    .flatMap((series) => [series.ReferencedSOPSequence].flat())
    .map((item) => item.ReferencedSOPInstanceUID);
  const source = { getImageIdsForDisplaySet: () => images };
  const services = {
    displaySetService: { activeDisplaySets: [{ displaySetInstanceUID: 'images' }], EVENTS: {}, subscribe() {} },
    measurementService: { getSourceMappings: () => [{ annotationType: 'Probe' }] },
    customizationService: { getCustomization: () => undefined },
  };
  const handlers = sr.getSopClassHandlerModule({ servicesManager: { services }, extensionManager: { getDataSources: () => [source] } });
  const handler = handlers.find((item) => item.sopClassUids.includes(instance.SOPClassUID));
  const [displaySet] = handler.getDisplaySetsFromSeries([instance]);
  await displaySet.load();
  // What loading the report into the list of measurements gives.
  const { MeasurementReport } = adapters.adaptersSR.Cornerstone3D;
  const map = Object.fromEntries(images.map((uid) => [`${uid}:1`, uid]));
  const state = MeasurementReport.generateToolState(instance, map, metadata);
  return {
    rehydratable: displaySet.isRehydratable,
    library: displaySet.referencedImages.length,
    measurements: displaySet.measurements.map((item) => ({
      identifier: item.TrackingIdentifier,
      labels: item.labels.map(({ label, value }) => `${label}: ${value}`),
      image: item.ReferencedSOPInstanceUID,
      loaded: item.loaded,
      point: Array.from(item.coords[0]?.GraphicData ?? []),
    })),
    drawn: shown.length,
    hydrated: Object.entries(state).flatMap(([tool, items]) => items.map((item) => ({ tool, label: item.annotation.data.label ?? item.commentGroup?.TextValue, image: item.sopInstanceUid }))),
  };
}

const found = {};
for (const file of files) found[file] = await read(file);
process.stdout.write(JSON.stringify(found));
