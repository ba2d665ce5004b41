"use strict";
(() => {
  const token = document.querySelector('meta[name="lumbar-token"]').content;
  const drop = document.getElementById("drop");
  const jobs = document.getElementById("jobs");
  const AT_ONCE = 4;
  const POLL_MS = 600;

  async function ask(method, path, body) {
    const response = await fetch(path, { method, body, headers: { "x-lumbar-token": token } });
    const answer = await response.json().catch(() => ({ detail: "no answer that can be read" }));
    if (!response.ok) throw new Error(answer.detail || "refused");
    return answer;
  }

  function card(title) {
    const article = document.getElementById("job").content.firstElementChild.cloneNode(true);
    article.querySelector("h2").textContent = title;
    jobs.prepend(article);
    const bar = article.querySelector("progress");
    bar.setAttribute("aria-label", `Progress of ${title}`);
    return {
      article,
      bar,
      say(text, problem) {
        const state = article.querySelector(".state");
        state.textContent = text;
        state.classList.toggle("problem", Boolean(problem));
      },
    };
  }

  function left(began, share) {
    if (share < 0.03) return "";
    const seconds = Math.round(((performance.now() - began) / 1000) * (1 - share) / share);
    return seconds > 90 ? `, about ${Math.round(seconds / 60)} min left` : `, about ${seconds} s left`;
  }

  async function upload(job, files, view) {
    const total = files.reduce((sum, [, file]) => sum + file.size, 0) || 1;
    const began = performance.now();
    let sent = 0;
    let next = 0;
    async function lane() {
      while (next < files.length) {
        const [name, file] = files[next++];
        await ask("PUT", `/api/jobs/${job.id}/files?name=${encodeURIComponent(name)}`, file);
        sent += file.size;
        view.bar.value = sent / total;
        view.say(`Taking in ${files.length} files${left(began, sent / total)}`);
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  async function wait(job, view) {
    const began = performance.now();
    for (;;) {
      const state = await ask("GET", `/api/jobs/${job.id}`);
      view.bar.value = state.share;
      if (state.state === "done") return state;
      if (state.state === "failed") throw new Error(state.message);
      view.say(state.state === "waiting" ? "Waiting for the jobs before it" : `Grading: ${state.message}${left(began, state.share)}`);
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  }

  function present(state, view, title) {
    const base = `/jobs/${state.id}/`;
    const reports = state.results.filter((name) => name.endsWith("report.html"));
    const main = reports.length === 1 ? reports[0] : "index.html";
    const unused = state.not_used ? ` ${state.not_used} files or series were not used: the report says which and why.` : "";
    view.say(`Done: ${state.studies} ${state.studies === 1 ? "study" : "studies"}.${unused}`);
    view.bar.hidden = true;
    const links = [[main, "Open the report in a tab"], ["targets.csv", "targets.csv"], ["predictions.json", "predictions.json"], ["submission.csv", "submission.csv"]];
    for (const [name, text] of links) {
      const link = document.createElement("a");
      link.href = base + name;
      link.textContent = text;
      link.style.marginRight = "18px";
      if (name === main) link.target = "_blank";
      else link.download = name;
      view.article.querySelector(".actions").append(link);
    }
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "plain";
    remove.textContent = "Remove images and results";
    remove.addEventListener("click", async () => {
      await ask("DELETE", `/api/jobs/${state.id}`).catch(() => {});
      view.article.remove();
      document.getElementById("choose-folder").focus();
    });
    view.article.querySelector(".actions").append(remove);
    const frame = document.createElement("iframe");
    frame.className = "result";
    frame.title = `Report of ${title}`;
    frame.src = base + main;
    view.article.querySelector(".result").append(frame);
  }

  async function run(title, files) {
    const view = card(title);
    let job = null;
    try {
      if (!files.length) throw new Error("there is no file in it: give a folder or zip that holds DICOM files");
      view.say("Taking in the files");
      job = await ask("POST", "/api/jobs");
      await upload(job, files, view);
      view.bar.value = 0;
      await ask("POST", `/api/jobs/${job.id}/start`);
      present(await wait(job, view), view, title);
    } catch (error) {
      view.bar.hidden = true;
      view.say(`Not graded: ${error.message}`, true);
      if (job) ask("DELETE", `/api/jobs/${job.id}`).catch(() => {});
    }
  }

  async function walk(entry, path, found) {
    if (entry.isFile) {
      found.push([path + entry.name, await new Promise((good, bad) => entry.file(good, bad))]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((good, bad) => reader.readEntries(good, bad));
      if (!batch.length) return;
      for (const child of batch) await walk(child, `${path}${entry.name}/`, found);
    }
  }

  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const found = [];
    for (const entry of entries) await walk(entry, "", found);
    run(entries.map((entry) => entry.name).join(", ") || "nothing", found);
  });
  // A file dropped beside the field must not replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  for (const kind of ["folder", "zip"]) {
    const input = document.getElementById(kind);
    document.getElementById(`choose-${kind}`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const files = [...input.files].map((file) => [file.webkitRelativePath || file.name, file]);
      if (files.length) run(files[0][0].split("/")[0], files);
      input.value = "";
    });
  }
})();
