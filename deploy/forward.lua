-- Sends the MR series of every study that has come in completely to lumbar, but not lumbar's own results, and labels the
-- study when they have arrived. Orthanc gives a job up when lumbar is away, and a restart makes it forget which studies
-- were still coming in: so studies without the label are sent at every heartbeat. Orthanc 1.12 or later.
local label = 'sent-to-lumbar'
local under_way = {}  -- the job of each study that is being sent

local function forward(study)
  local images = {}
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'MR' then
      table.insert(images, series['ID'])
    end
  end
  if #images > 0 then
    local job = RestApiPost('/modalities/lumbar/store', DumpJson({ Resources = images, Asynchronous = true }))
    under_way[study] = ParseJson(job)['ID']
  end
end

local function ended(job, arrived)
  for study, its_job in pairs(under_way) do
    if its_job == job then
      under_way[study] = nil
      if arrived then
        RestApiPut('/studies/' .. study .. '/labels/' .. label, '')
      end
    end
  end
end

function OnStableStudy(studyId, tags, metadata)
  RestApiDelete('/studies/' .. studyId .. '/labels/' .. label)
  forward(studyId)
end

function OnJobSuccess(jobId)
  ended(jobId, true)
end

function OnJobFailure(jobId)
  ended(jobId, false)
end

function OnHeartBeat()
  local unsent = {
    Level = 'Study', Query = { ModalitiesInStudy = 'MR' }, Labels = { label }, LabelsConstraint = 'None', Expand = true
  }
  for _, study in pairs(ParseJson(RestApiPost('/tools/find', DumpJson(unsent)))) do
    if study['IsStable'] and not under_way[study['ID']] then
      forward(study['ID'])
    end
  end
end
