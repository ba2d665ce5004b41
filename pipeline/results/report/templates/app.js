"use strict";
(() => {
  const token = document.querySelector('meta[name="lumbar-token"]').content;
  const drop = document.getElementById("drop");
  const jobs = document.getElementById("jobs");
  const limits = Object.fromEntries(Object.entries(drop.dataset).map(([name, value]) => [name, Number(value)]));
  const AT_ONCE = 4;
  const POLL_MS = 600;
  const LOOKED_AT_BYTES = 4096;
  const GONE = "the program does not answer. Was it ended? Start lumbar app again, and load this page anew";
  const REMOVED = "removed";
  // The ids of this tab's jobs, so that they are shown again when it is loaded anew; names stay out of it.
  const KEPT = "lumbar-jobs";
  const sending = new Set();

  async function ask(method, path, more) {
    let response;
    try {
      response = await fetch(path, { method, headers: { "x-lumbar-token": token }, ...more });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(GONE);
    }
    const answer = await response.json().catch(() => ({ detail: "no answer that can be read" }));
    if (!response.ok) throw new Error(answer.detail || "refused");
    return answer;
  }

  function keep(change) {
    try {
      const kept = new Set(JSON.parse(sessionStorage.getItem(KEPT) || "[]"));
      change(kept);
      sessionStorage.setItem(KEPT, JSON.stringify([...kept]));
      return [...kept];
    } catch { return []; } // a browser that keeps nothing shows nothing again
  }

  function card(title) {
    const article = document.getElementById("job").content.firstElementChild.cloneNode(true);
    article.querySelector("h2").textContent = title;
    jobs.prepend(article);
    const bar = article.querySelector("progress");
    bar.setAttribute("aria-label", `Progress of ${title}`);
    const view = {
      article,
      bar,
      title,
      job: null,
      stop: new AbortController(),
      say(text, problem) {
        const state = article.querySelector(".state");
        state.textContent = text;
        state.classList.toggle("problem", Boolean(problem));
      },
      end(text, problem) {
        bar.hidden = true;
        view.say(text, problem);
      },
    };
    view.remove = button(view, "Cancel", () => {
      view.stop.abort(REMOVED);
      forget(view);
      article.remove();
      document.getElementById("choose-folder").focus();
    });
    return view;
  }

  function button(view, text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "plain";
    made.textContent = text;
    made.addEventListener("click", act);
    view.article.querySelector(".actions").append(made);
    return made;
  }

  function forget(view) {
    if (!view.job) return;
    const { id } = view.job;
    keep((kept) => kept.delete(id));
    ask("DELETE", `/api/jobs/${id}`, { keepalive: true }).catch(() => {});
  }

  function left(began, share) {
    if (share < 0.03) return "";
    const seconds = Math.round(((performance.now() - began) / 1000) * (1 - share) / share);
    return seconds > 90 ? `, about ${Math.round(seconds / 60)} min left` : `, about ${seconds} s left`;
  }

  const isZip = (name) => name.toLowerCase().endsWith(".zip");

  function check(files) {
    if (!files.length) throw new Error("there is no file in it: give a folder or zip that holds DICOM files");
    if (files.length > limits.files) throw new Error(`more than ${limits.files} files: give one study at a time, or a zip`);
    const bytes = files.reduce((sum, [, file]) => sum + (file ? file.size : 0), 0);
    if (bytes > limits.total) throw new Error(`more than ${limits.total} bytes in all: give one study at a time`);
    if (files.some(([name, file]) => isZip(name) && file && file.size > limits.zip)) {
      throw new Error(`a zip has more than ${limits.zip} bytes: unpack it, and give one study at a time`);
    }
  }

  // A file that the program cannot get is named in the results, and ends nothing else.
  async function send(view, name, file) {
    const path = `/api/jobs/${view.job.id}/files?name=${encodeURIComponent(name)}`;
    const { signal } = view.stop;
    const start = file && await file.slice(0, LOOKED_AT_BYTES).arrayBuffer().catch(() => null);
    if (!start) return ask("PUT", `${path}&not_sent=unreadable`, { signal });
    if (file.size > limits.file && !isZip(name)) {
      return ask("PUT", `${path}&not_sent=too_large&size=${file.size}`, { body: start, signal });
    }
    try {
      return await ask("PUT", path, { body: file, signal });
    } catch (error) {
      if (error.message !== GONE) throw error;
      await ask("GET", `/api/jobs/${view.job.id}`, { signal }); // it answers: it is the file
      return ask("PUT", `${path}&not_sent=unreadable`, { signal });
    }
  }

  async function upload(view, files) {
    const total = files.reduce((sum, [, file]) => sum + (file ? file.size : 0), 0) || 1;
    const began = performance.now();
    let sent = 0;
    let next = 0;
    async function lane() {
      while (next < files.length && !view.stop.signal.aborted) {
        const [name, file] = files[next++];
        await send(view, name, file);
        sent += file ? file.size : 0;
        if (view.stop.signal.aborted) return;
        view.bar.value = sent / total;
        view.say(`Taking in ${files.length} files${left(began, sent / total)}`);
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  async function wait(view) {
    const began = performance.now();
    for (;;) {
      const state = await ask("GET", `/api/jobs/${view.job.id}`, { signal: view.stop.signal });
      view.bar.value = state.share;
      if (state.state === "done") return state;
      if (state.state === "failed") throw new Error(state.message);
      view.say(state.state === "waiting" ? "Waiting for the jobs before it" : `Grading: ${state.message}${left(began, state.share)}`);
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  }

  function outcome(state) {
    const studies = state.studies === 1 ? "1 study" : `${state.studies} studies`;
    let said = `Done: ${studies}.`;
    if (!state.graded) said = `Nothing could be graded of ${studies}: the report says why.`;
    else if (state.graded < state.studies) said = `Done: ${state.graded} of ${studies} graded. Nothing could be graded of the others: their reports say why.`;
    if (state.not_used) said += ` Files, series or studies that were not used: ${state.not_used}.`;
    if (state.doubtful) said += ` Incomplete or doubtful: ${state.doubtful}.`;
    if (state.not_used || state.doubtful) said += " refused.csv says which and why.";
    return said;
  }

  function present(state, view) {
    const base = `/jobs/${state.id}/`;
    const reports = state.results.filter((name) => name.endsWith("report.html"));
    const main = reports.length === 1 && state.studies === 1 ? reports[0] : "index.html";
    view.end(outcome(state), state.graded < state.studies);
    const list = view.article.querySelector(".of-no-study");
    list.hidden = main === "index.html" || !state.of_no_study.length; // that page says it, too
    for (const words of state.of_no_study) {
      const item = document.createElement("li");
      item.textContent = words;
      list.append(item);
    }
    const links = [[main, "Open the report in a tab"], ...["targets.csv", "refused.csv", "predictions.json", "submission.csv"].map((name) => [name, name])];
    for (const [name, text] of links) {
      const link = document.createElement("a");
      link.href = base + name;
      link.textContent = text;
      if (name === main) link.target = "_blank";
      else link.download = name;
      view.remove.before(link);
    }
    view.remove.textContent = "Remove images and results";
    const frame = document.createElement("iframe");
    frame.className = "result";
    frame.title = `Report of ${view.title}`;
    frame.src = base + main;
    view.article.querySelector(".result").append(frame);
  }

  // Steps of a job, from wherever it is, to its end.
  async function through(view, steps) {
    try {
      for (const step of steps) await step();
      present(await wait(view), view);
    } catch (error) {
      if (view.stop.signal.reason === REMOVED) return;
      view.stop.abort(); // what is still being sent, too
      view.end(`Not graded: ${error.message}`, true);
      view.remove.textContent = "Close";
      forget(view);
    } finally {
      sending.delete(view);
    }
  }

  function run(title, find) {
    const view = card(title);
    let files = [];
    sending.add(view);
    return through(view, [
      async () => {
        view.say("Looking for files");
        files = await find();
        check(files);
      },
      async () => {
        view.say("Taking in the files");
        view.job = await ask("POST", `/api/jobs?title=${encodeURIComponent(title)}`);
        keep((kept) => kept.add(view.job.id));
        if (view.stop.signal.aborted) forget(view);
        await upload(view, files);
      },
      async () => {
        view.bar.value = 0;
        await ask("POST", `/api/jobs/${view.job.id}/start`, { signal: view.stop.signal });
        sending.delete(view);
      },
    ]);
  }

  // Jobs that this tab began before it was loaded anew.
  async function again(id) {
    const state = await ask("GET", `/api/jobs/${id}`).catch(() => null);
    if (!state) {
      keep((kept) => kept.delete(id));
      return;
    }
    const view = card(state.title);
    view.job = state;
    if (state.state === "uploading") view.end("The upload was broken off: cancel it, and drop the folder or zip again.", true);
    else through(view, []);
  }
  (async () => { for (const id of keep(() => {})) await again(id); })();

  window.addEventListener("beforeunload", (event) => { if (sending.size) event.preventDefault(); });
  window.addEventListener("pagehide", () => { for (const view of sending) forget(view); });

  async function walk(entry, path, found) {
    if (entry.isFile) {
      const file = await new Promise((good) => entry.file(good, () => good(null)));
      found.push([path + entry.name, file]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((good, bad) => reader.readEntries(good, bad)).catch(() => {
        throw new Error("a folder in it cannot be read: check that you may read all of it");
      });
      if (!batch.length) return;
      for (const child of batch) await walk(child, `${path}${entry.name}/`, found);
    }
  }

  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    run(entries.map((entry) => entry.name).join(", ") || "nothing", async () => {
      const found = [];
      const names = entries.map((entry) => entry.name);
      // Of two with one name from different places, the second goes into a folder of its own.
      for (const [place, entry] of entries.entries()) await walk(entry, names.indexOf(entry.name) === place ? "" : `${place + 1}/`, found);
      return found;
    });
  });
  // A file dropped beside the field must not replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  for (const kind of ["folder", "zip"]) {
    const input = document.getElementById(kind);
    document.getElementById(`choose-${kind}`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const files = [...input.files].map((file) => [file.webkitRelativePath || file.name, file]);
      if (files.length) run(files[0][0].split("/")[0], async () => files);
      input.value = "";
    });
  }
})();
