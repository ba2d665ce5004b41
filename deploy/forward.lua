-- Sends the MR series of every study that has come in completely to lumbar, but not lumbar's own results: as one job,
-- which Orthanc tries again when it fails (GET /jobs shows it).
function OnStableStudy(studyId, tags, metadata)
  local images = {}
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'MR' then
      table.insert(images, series['ID'])
    end
  end
  if #images > 0 then
    RestApiPost('/modalities/lumbar/store', DumpJson({ Resources = images, Asynchronous = true }))
  end
end
