-- Sends every MR study that has come in completely to lumbar, but not lumbar's own results.
function OnStableStudy(studyId, tags, metadata)
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'MR' then
      SendToModality(series['ID'], 'lumbar')
    end
  end
end
