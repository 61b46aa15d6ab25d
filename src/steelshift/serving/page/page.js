"use strict";
// Whatever comes from files or the server is shown as text (textContent) and never as markup.

const WORDS = {
  en: {
    title: "Inspect surface images", token: "Token of this server", unlock: "Use it",
    drop: "Drop images here, or choose files",
    kinds: "PNG, JPEG, BMP or TIFF, 8 to 16 bit. They go to this server alone, which keeps none.",
    heat: "Heat map", clear: "Remove all", results: "Results", metrics: "Metrics", second: "Next:",
    nearest: "Nearest source examples", all: "All values", waiting: "Waiting …",
    accept: "✓ Accepted", "reject-uncertain": "? Uncertain: a person should look",
    "reject-unknown": "? Unlike the source line: a person should look", unreadable: "✕ Cannot be read",
    failed: "✕ No answer", offline: "The server cannot be reached.",
    progress: (done, count, look) => `${done} of ${count} inspected` + (look ? `, ${look} for a person to look at` : ""),
    inspector: (hash, facts) => `Inspector ${hash} · ${facts.encoder} · ` +
      (facts.heads.length ? `${facts.heads.length} tasks` : `${facts.classes.length} classes`),
    picture: (name) => `${name}, as the inspector saw it`,
  },
  zh: {
    title: "检测表面图像", token: "本服务器的令牌", unlock: "使用",
    drop: "将图像拖到此处，或选择文件",
    kinds: "PNG、JPEG、BMP 或 TIFF，8 至 16 位。只发送到本服务器，且不会保存。",
    heat: "热图", clear: "全部移除", results: "结果", metrics: "指标", second: "其次：",
    nearest: "最相近的源产线样本", all: "全部数值", waiting: "等待中……",
    accept: "✓ 接受", "reject-uncertain": "? 不确定，请人工复核",
    "reject-unknown": "? 与源产线不相似，请人工复核", unreadable: "✕ 无法读取",
    failed: "✕ 没有结果", offline: "无法连接服务器。",
    progress: (done, count, look) => `已检测 ${done} / ${count}` + (look ? `，其中 ${look} 张需人工复核` : ""),
    inspector: (hash, facts) => `检测器 ${hash} · ${facts.encoder} · ` +
      (facts.heads.length ? `${facts.heads.length} 个任务` : `${facts.classes.length} 个类别`),
    picture: (name) => `${name}，检测器所见`,
  },
};
const AT_ONCE = 4; // requests
const TRIES = 6; // while the server says that it has too much to do

const by = (id) => document.getElementById(id);
const cards = [];
let language = stored() || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let token = "";
let facts = null;
let running = 0;

function stored() {
  try { return WORDS[localStorage.getItem("language")] ? localStorage.getItem("language") : null; } catch { return null; }
}

function headers() {
  return { "Accept-Language": language, ...(token && { Authorization: `Bearer ${token}` }) };
}

function speak(chosen) {
  language = chosen;
  try { localStorage.setItem("language", chosen); } catch { /* a browser that keeps nothing */ }
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === chosen));
  }
  label(document);
  showInspector();
  for (const card of cards) { card.state = "new"; show(card); }
  work(); // reasons are the server's words: they come anew
}

function label(root) {
  for (const each of root.querySelectorAll("[data-say]")) each.textContent = WORDS[language][each.dataset.say];
  for (const each of root.querySelectorAll("[data-say-label]")) each.setAttribute("aria-label", WORDS[language][each.dataset.sayLabel]);
}

function add(files) {
  for (const file of files) {
    const node = by("card").content.cloneNode(true).firstElementChild;
    label(node);
    node.querySelector(".name").textContent = file.name;
    by("results").append(node);
    const card = { file, node, state: "new", answer: null, problem: null };
    cards.push(card);
    show(card);
  }
  work();
}

function work() {
  for (let card; facts && running < AT_ONCE && (card = cards.find((each) => each.state === "new"));) {
    card.state = "sent";
    running += 1;
    inspect(card).finally(() => { running -= 1; show(card); count(); work(); });
  }
  count();
}

async function inspect(card) {
  const asked = language;
  for (let tries = 1; ; tries += 1) {
    let reply;
    try {
      reply = await fetch("v1/inspect?pictures=true", {
        method: "POST", body: card.file, headers: { ...headers(), "Content-Type": "application/octet-stream" },
      });
    } catch {
      return settle(card, asked, null, WORDS[language].offline);
    }
    if ((reply.status === 429 || reply.status === 503) && tries < TRIES) {
      await new Promise((wake) => setTimeout(wake, 1000 * (Number(reply.headers.get("Retry-After")) || 1)));
      continue;
    }
    const said = await reply.json().catch(() => ({}));
    if (reply.status === 401) lock(said.detail);
    return reply.ok ? settle(card, asked, said, null) : settle(card, asked, null, said.detail || reply.statusText, reply.status);
  }
}

function settle(card, asked, answer, problem, status) {
  if (asked !== language) { card.state = "new"; return; } // in the words of before
  Object.assign(card, { answer, problem, status, state: "done" });
}

const percent = (p) => `${(100 * p).toFixed(1)}\u00a0%`;

function show(card) {
  const { node, answer } = card;
  const part = (name) => node.querySelector(name);
  const words = WORDS[language];
  const row = answer && answer.row;
  node.setAttribute("aria-busy", String(card.state !== "done"));
  node.classList.remove("good", "look", "bad");
  const tasks = Object.keys(row || {}).filter((key) => key.endsWith(" class")).map((key) => key.slice(0, -" class".length));
  part(".answers").hidden = !row || tasks.length > 0;
  part(".tasks").hidden = tasks.length === 0;
  part("details").hidden = !row;
  part(".nothing").textContent = card.state === "done" ? (row ? "" : "✕") : "…";
  part(".nothing").hidden = Boolean(answer && answer.picture);
  for (const name of ["picture", "heat"]) part("." + name).hidden = true;
  if (card.state !== "done") {
    part(".chip").textContent = words.waiting;
    part(".reason").textContent = "";
    return;
  }
  if (!row) {
    node.classList.add("bad");
    part(".chip").textContent = card.status === 422 ? words.unreadable : words.failed;
    part(".reason").textContent = card.problem;
    return;
  }
  node.classList.add(row.decision === "accept" ? "good" : "look");
  part(".chip").textContent = words[row.decision] || row.decision;
  if (tasks.length) part(".tasks").replaceChildren(...tasks.flatMap((task) => toldOf(task, row)));
  else showClass(part, row);
  part(".reason").textContent = row.reason;
  if (answer.picture) {
    part(".picture").src = answer.picture;
    part(".picture").alt = words.picture(card.file.name);
    part(".picture").hidden = false;
  }
  if (answer.heat_map) {
    part(".heat").src = answer.heat_map;
    part(".heat").hidden = false;
    fade(node);
  }
  part(".nearest").hidden = !row.nearest;
  part(".nearest ul").replaceChildren(...(row.nearest || "").split("; ").map((each) => element("li", each)));
  part("tbody").replaceChildren(...Object.entries(row).filter(([, value]) => value !== null && value !== "")
    .map(([key, value]) => element("tr", element("th", key), element("td", String(value)))));
}

function showClass(part, row) {
  part(".class").textContent = row.class;
  part(".p").textContent = percent(row.p);
  part(".meter").value = row.p;
  part(".meter").setAttribute("aria-label", `${row.class} ${percent(row.p)}`);
  part(".second-class").textContent = row.second_class;
  part(".second-p").textContent = percent(row.p - row.margin);
}

function toldOf(task, row) {
  const told = element("dd", `${row[`${task} class`]} `, element("span", percent(row[`${task} p`])));
  if (row[`${task} decision`] !== "accept") {
    told.prepend("? ");
    told.className = "unsure";
  }
  return [element("dt", task), told];
}

function element(kind, ...content) {
  const made = document.createElement(kind);
  made.append(...content);
  if (kind === "th") made.scope = "row";
  return made;
}

function count() {
  by("bar").hidden = !cards.length;
  const done = cards.filter((card) => card.state === "done");
  const look = done.filter((card) => !card.answer || card.answer.row.decision !== "accept");
  by("progress").textContent = WORDS[language].progress(done.length, cards.length, look.length);
}

function fade(root) {
  for (const heat of root.querySelectorAll(".heat")) heat.style.opacity = by("heat").value / 100;
}

function lock(why) {
  by("unlock").hidden = false;
  by("unlock-why").textContent = why || "";
}

async function meet() {
  for (;;) {
    const reply = await fetch("v1/inspector", { headers: headers() }).catch(() => null);
    if (reply && reply.ok) {
      facts = await reply.json();
      by("unlock").hidden = true;
      showInspector();
      return work(); // what was dropped while the server began
    }
    if (reply && reply.status === 401) return lock(token && (await reply.json()).detail);
    await new Promise((wake) => setTimeout(wake, 1000));
  }
}

function showInspector() {
  by("inspector").textContent = facts ? WORDS[language].inspector(facts.inspector.slice(0, 12), facts) : "";
}

by("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
by("clear").addEventListener("click", () => { cards.length = 0; by("results").replaceChildren(); count(); by("files").focus(); });
by("heat").addEventListener("input", () => fade(document));
by("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = by("token").value.trim();
  for (const card of cards) if (card.status === 401) card.state = "new";
  meet();
});
for (const button of document.querySelectorAll("[data-language]")) button.addEventListener("click", () => speak(button.dataset.language));
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") add(event.dataTransfer.files);
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) by("drop").classList.remove("over"); });
speak(language);
meet();
