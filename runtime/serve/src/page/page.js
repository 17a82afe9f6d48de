// The page of a wick server. It uses only the public REST interface, and writes what comes
// from there as text: nothing of it is ever parsed as HTML.
"use strict";
(() => {
  // Time between two looks at states and statistics, in milliseconds.
  const REFRESH = 5000;
  // Elements of an output that are shown, and elements that a curl line has as JSON.
  const SHOWN = 64;
  // Most bytes of zeros that are sent: what a slip of a shape must not become.
  const MAX_ZEROS = 256 * 2 ** 20;

  // By datatype: bytes of an element, and how one is read.
  const TYPES = {
    BOOL: [1, (v, at) => v.getUint8(at) !== 0],
    UINT8: [1, (v, at) => v.getUint8(at)],
    UINT16: [2, (v, at) => v.getUint16(at, true)],
    UINT32: [4, (v, at) => v.getUint32(at, true)],
    UINT64: [8, (v, at) => v.getBigUint64(at, true)],
    INT8: [1, (v, at) => v.getInt8(at)],
    INT16: [2, (v, at) => v.getInt16(at, true)],
    INT32: [4, (v, at) => v.getInt32(at, true)],
    INT64: [8, (v, at) => v.getBigInt64(at, true)],
    FP16: [2, (v, at) => half(v.getUint16(at, true))],
    BF16: [2, (v, at) => brain(v.getUint16(at, true))],
    FP32: [4, (v, at) => single(v.getFloat32(at, true))],
    FP64: [8, (v, at) => v.getFloat64(at, true)],
  };
  const NO_JSON = ["FP16", "BF16"];

  const $ = (id) => document.getElementById(id);
  const state = { token: "", entries: [], stats: [], selected: null, answered: null };

  /** An element with attributes and children; texts are texts. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const say = (id, text) => {
    $(id).textContent = text;
    $(id).hidden = text === "";
  };

  // === the server ===

  const address = (path) => new URL(path, document.baseURI);

  /** The paths of a model are below this one. */
  function pathOf({ name, version }) {
    const below = version ? `/versions/${encodeURIComponent(version)}` : "";
    return `models/${encodeURIComponent(name)}${below}`;
  }

  async function call(path, options = {}) {
    const headers = { ...options.headers };
    if (state.token) headers.Authorization = `Bearer ${state.token}`;
    const answer = await fetch(address(path), { ...options, headers, cache: "no-store" });
    if (answer.status === 401) $("access").hidden = false;
    if (answer.ok) return answer;
    const text = await answer.text();
    let message = `${answer.status} ${answer.statusText}`;
    try {
      message = JSON.parse(text).error ?? message;
    } catch {
      // What is not the server's JSON, such as a proxy's page, is not shown.
    }
    throw new Error(message);
  }

  const json = async (path, options) => (await call(path, options)).json();

  // === the list ===

  async function refresh() {
    try {
      const index = json("repository/index", { method: "POST", body: "{}" });
      const stats = json("models/stats").catch(() => ({ model_stats: [] }));
      state.entries = await index;
      state.stats = (await stats).model_stats;
      say("problem", "");
    } catch (error) {
      say("problem", `The server does not say which models it has: ${error.message}`);
    }
    list();
    await select();
  }

  function list() {
    const focused = document.activeElement?.dataset?.model;
    const rows = state.entries.map((entry) => row(entry));
    if (rows.length === 0) rows.push(make("tr", {}, make("td", { colspan: 7 }, "None.")));
    $("models").replaceChildren(...rows);
    // The rows are new: who was on one of them with the keyboard stays there.
    if (focused) rows.map((row) => row.querySelector("a")).find((a) => a?.dataset.model === focused)?.focus();
  }

  function row(entry) {
    const stats = state.stats.find((s) => s.name === entry.name && s.version === entry.version);
    const { success, fail, queue } = stats?.inference_stats ?? {};
    const [word, look] = condition(entry);
    const key = keyOf(entry);
    const link = make("a", { href: `#${key}`, "data-model": key }, entry.name);
    if (state.selected === key) link.setAttribute("aria-current", "true");
    const number = (text) => make("td", { class: "number" }, text);
    return make("tr", {},
      make("th", { scope: "row" }, link),
      make("td", {}, entry.version ?? ""),
      make("td", { class: look }, word),
      number(stats ? String(success.count + fail.count) : ""),
      number(stats ? String(fail.count) : ""),
      number(mean(success)),
      number(mean(queue)));
  }

  /** What a model's state is called, and its class. */
  function condition({ state: word, reason }) {
    // A cold model is ready: its next request loads it.
    if (word === "READY") return [isCold(reason) ? "cold" : "ready", "ready"];
    if (word === "LOADING") return ["loading", "wait"];
    if (word === "UNLOADING") return ["finishing", "wait"];
    return reason === "unloaded" ? ["unloaded", "soft"] : ["failed", "failed"];
  }

  const isCold = (reason) => reason.startsWith("cold");

  const keyOf = (entry) => encodeURIComponent(JSON.stringify([entry.name, entry.version ?? ""]));

  /** Mean time of counted events. */
  function mean(duration) {
    if (!duration?.count) return "";
    const ms = duration.ns / duration.count / 1e6;
    return ms < 10 ? `${ms.toFixed(2)} ms` : `${ms.toFixed(0)} ms`;
  }

  // === one model ===

  /** Show the model that the address names, or the first. */
  async function select() {
    const wanted = location.hash.slice(1);
    const entry = state.entries.find((entry) => keyOf(entry) === wanted) ?? state.entries[0];
    if (!entry) {
      $("model").hidden = true;
      return;
    }
    const key = keyOf(entry);
    const reason = entry.reason === "unloaded" || isCold(entry.reason) ? "" : entry.reason;
    say("reason", reason && entry.state === "READY" ? `The last load failed: ${reason}` : reason);
    const mark = `${key} ${entry.state}`;
    // A form that is being filled is not taken away by a refresh.
    if (state.mark === mark) return;
    const changed = state.selected !== key;
    state.mark = mark;
    state.selected = key;
    list();
    $("model-title").textContent = entry.name;
    $("model").hidden = false;
    let model = null;
    let failure = null;
    if (entry.state === "READY") {
      model = await json(pathOf(entry)).catch((error) => ((failure = error), null));
    }
    if (state.mark !== mark) return;
    describe(entry, model);
    if (failure) {
      say("reason", failure.message);
      // The next refresh asks again.
      state.mark = null;
    }
    if (changed) {
      $("answer").hidden = true;
      say("refusal", "");
      $("status").textContent = "";
    }
  }

  function describe(entry, model) {
    const properties = model?.properties ?? {};
    say("description", properties.description ?? "");
    const facts = [];
    if (model) {
      facts.push(tensors("Inputs", model.inputs), tensors("Outputs", model.outputs));
      const graphs = properties.graphs ?? [];
      if (graphs.length) facts.push(devices(graphs));
    }
    $("facts").replaceChildren(...facts);
    const http = properties.kind === "http";
    if (http) say("description", `${properties.description ?? ""} This package answers HTTP itself.`.trim());
    $("try").hidden = !model || http;
    if (!model || http) return;
    const editors = model.inputs.map((spec, at) => editor(spec, at));
    $("inputs").replaceChildren(...editors.map((editor) => editor.element));
    $("try").onsubmit = (event) => {
      event.preventDefault();
      send(entry, model, editors);
    };
  }

  function table(caption, heads, rows) {
    const head = heads.map((text) => make("th", { scope: "col" }, text));
    const all = make("table", {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows));
    return make("div", { class: "scroll" }, all);
  }

  function tensors(caption, specs) {
    const rows = specs.map((spec) => make("tr", {},
      make("th", { scope: "row", class: "mono" }, spec.name),
      make("td", { class: "mono" }, spec.datatype),
      make("td", { class: "mono" }, `[${spec.shape.join(", ")}]`)));
    return table(caption, ["Name", "Datatype", "Shape"], rows);
  }

  function devices(graphs) {
    const rows = graphs.map((graph) => make("tr", {},
      make("th", { scope: "row", class: "mono" }, graph.name),
      make("td", {}, device(graph)),
      make("td", {}, `${graph.backend} ${graph.backend_version}`)));
    return table("Graphs", ["Name", "Device", "Backend"], rows);
  }

  /** The device in use, and how much of the graph runs on it. */
  function device({ device: { kind, vendor }, share }) {
    const part = share < 1 ? `, ${Math.round(share * 100)} % of the nodes` : "";
    return `${kind.toUpperCase()}${vendor ? ` (${vendor})` : ""}${part}`;
  }

  // === an input's editor ===

  /** Controls for one input, and what they say it is. */
  function editor(spec, at) {
    const id = (what) => `input-${at}-${what}`;
    const unknown = spec.shape.filter((dim) => dim < 0).length;
    const control = (what, label, element, wide) => {
      element.id = id(what);
      return make("div", { class: wide ? "wide" : null }, make("label", { for: id(what) }, label), element);
    };
    const sources = ["File"];
    if (spec.datatype !== "BYTES") sources.unshift("Zeros");
    if (!NO_JSON.includes(spec.datatype)) sources.unshift("Values");
    const source = make("select", {}, ...sources.map((name) => make("option", {}, name)));
    const values = make("textarea", { spellcheck: "false", placeholder: example(spec) });
    const file = make("input", { type: "file" });
    const shape = make("input", { placeholder: unknown === 1 ? "computed" : spec.shape.join(", ") });
    const parts = {
      Values: control("values", spec.datatype === "BYTES" ? "Texts, one a line" : "Values", values, true),
      File: control("file", spec.datatype === "BYTES" ? "File: one element" : "File: the bytes", file),
      Zeros: make("div"),
    };
    const show = () => {
      for (const [name, part] of Object.entries(parts)) part.hidden = source.value !== name;
    };
    source.onchange = show;
    // Files are what models that take any number of bytes are for.
    if (spec.datatype === "UINT8") source.value = unknown === 1 && spec.shape.length === 1 ? "File" : source.value;
    show();
    const row = make("div", { class: "row" }, control("source", "From", source));
    if (unknown > 0) row.append(control("shape", `Shape, of [${spec.shape.join(", ")}]`, shape));
    row.append(parts.Values, parts.File);
    const element = make("fieldset", {}, make("legend", { class: "mono" }, `${spec.name} ${spec.datatype}`), row);
    const read = () => input(spec, source.value, values.value, file.files[0], shape.value);
    return { element, read };
  }

  function example({ datatype }) {
    if (datatype === "BYTES") return "a text";
    if (datatype === "BOOL") return "true, false";
    return datatype.startsWith("FP") ? "0.5, 1, -2e3" : "1, 2, 3";
  }

  /** One input of a request: JSON text, and bytes behind the JSON. */
  async function input(spec, source, text, file, shapeText) {
    const fail = (why) => {
      throw new Error(`${spec.name}: ${why}`);
    };
    const size = spec.datatype === "BYTES" ? 1 : TYPES[spec.datatype][0];
    const typed = shapeText.split(/[\s,[\]]+/).filter((word) => word !== "").map(Number);
    if (typed.some((dim) => !Number.isInteger(dim) || dim < 0)) fail("a shape is whole numbers");
    const shape = (count) => (typed.length ? typed : computed(spec.shape, count) ?? fail("give the shape"));
    const made = (dims, rest) => ({ name: spec.name, shape: dims, datatype: spec.datatype, ...rest });
    if (source === "Values") {
      const data = elements(spec.datatype, text) ?? fail("the values are not all of its datatype");
      return { head: made(shape(data.length)), data, bytes: new Uint8Array(), from: null };
    }
    if (source === "Zeros") {
      const dims = typed.length ? typed : spec.shape.map((dim) => (dim < 0 ? 1 : dim));
      const count = dims.reduce((all, dim) => all * dim, size);
      if (count > MAX_ZEROS) fail("that shape is too large for this page");
      return { head: made(dims), data: null, bytes: new Uint8Array(count), from: ["zeros", count] };
    }
    if (!file) fail("choose a file");
    const content = new Uint8Array(await file.arrayBuffer());
    if (spec.datatype !== "BYTES") {
      return { head: made(shape(content.length / size)), data: null, bytes: content, from: ["file", file.name] };
    }
    const bytes = new Uint8Array(content.length + 4);
    new DataView(bytes.buffer).setUint32(0, content.length, true);
    bytes.set(content, 4);
    return { head: made(shape(1)), data: null, bytes, from: ["text", file.name, bytes.slice(0, 4)] };
  }

  /** The shape with its one unknown dimension, or null if it does not follow. */
  function computed(shape, count) {
    const known = shape.filter((dim) => dim >= 0).reduce((all, dim) => all * dim, 1);
    const unknown = shape.filter((dim) => dim < 0).length;
    if (unknown > 1) return null;
    const rest = count / known;
    return Number.isInteger(rest) ? shape.map((dim) => (dim < 0 ? rest : dim)) : shape.map((dim) => Math.abs(dim));
  }

  /** The elements of a text as JSON: numbers keep their digits, however many they are. */
  function elements(datatype, text) {
    if (datatype === "BYTES") return text.split("\n").map((line) => JSON.stringify(line));
    const words = text.split(/[\s,[\]]+/).filter((word) => word !== "");
    const good = datatype === "BOOL" ? /^(true|false)$/
      : datatype.startsWith("FP") ? /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/ : /^-?(0|[1-9]\d*)$/;
    return words.every((word) => good.test(word)) ? words : null;
  }

  // === a request ===

  function headText(inputs, binary) {
    const parts = inputs.map(({ head, data, bytes }) => {
      const parameters = data ? {} : { parameters: { binary_data_size: bytes.length } };
      const text = JSON.stringify({ ...head, ...parameters });
      return data ? `${text.slice(0, -1)},"data":[${data.join(",")}]}` : text;
    });
    const parameters = binary ? '"parameters":{"binary_data_output":true},' : "";
    return `{${parameters}"inputs":[${parts.join(",")}]}`;
  }

  async function send(entry, model, editors) {
    const button = $("send");
    button.disabled = true;
    say("refusal", "");
    $("status").textContent = "Waiting …";
    try {
      const inputs = await Promise.all(editors.map((editor) => editor.read()));
      // Binary outputs hold what JSON cannot: NaN, half floats, bytes that are no text.
      const head = new TextEncoder().encode(headText(inputs, true));
      const headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": String(head.length),
      };
      const body = new Blob([head, ...inputs.map((input) => input.bytes)]);
      const start = performance.now();
      const answer = await call(`${pathOf(entry)}/infer`, { method: "POST", headers, body });
      const bytes = await answer.arrayBuffer();
      const took = performance.now() - start;
      show(bytes, Number(answer.headers.get("Inference-Header-Content-Length") ?? bytes.byteLength));
      $("curl").textContent = curl(entry, model, inputs);
      $("copied").textContent = "";
      $("answer").hidden = false;
      $("status").textContent = `Answered in ${took.toFixed(0)} ms.`;
    } catch (error) {
      $("status").textContent = "";
      $("answer").hidden = true;
      say("refusal", error.message);
    }
    button.disabled = false;
    refresh();
  }

  function show(bytes, length) {
    const head = JSON.parse(new TextDecoder().decode(bytes.slice(0, length)));
    let at = length;
    const rows = head.outputs.map((output) => {
      const size = output.parameters?.binary_data_size;
      let values;
      if (size === undefined) {
        const all = (output.data ?? []).flat(Infinity);
        values = shown(all.slice(0, SHOWN), all.length);
      } else {
        values = decode(output.datatype, new DataView(bytes, at, size));
        at += size;
      }
      return make("tr", {},
        make("th", { scope: "row", class: "mono" }, output.name),
        make("td", { class: "mono" }, output.datatype),
        make("td", { class: "mono" }, `[${output.shape.join(", ")}]`),
        make("td", { class: "mono values" }, values));
    });
    const heads = ["Name", "Datatype", "Shape", "Values"];
    $("outputs").replaceChildren(table(`${head.model_name} ${head.model_version ?? ""}`, heads, rows));
  }

  function decode(datatype, view) {
    if (datatype === "BYTES") return texts(view);
    const [size, read] = TYPES[datatype];
    const count = view.byteLength / size;
    const few = Array.from({ length: Math.min(count, SHOWN) }, (_, n) => read(view, n * size));
    return shown(few, count);
  }

  function texts(view) {
    const all = [];
    for (let at = 0; at < view.byteLength;) {
      const size = view.getUint32(at, true);
      const bytes = new Uint8Array(view.buffer, view.byteOffset + at + 4, size);
      try {
        all.push(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
      } catch {
        all.push(`${size} bytes that are no text`);
      }
      at += 4 + size;
    }
    return shown(all.slice(0, SHOWN), all.length);
  }

  const shown = (few, count) =>
    few.map(String).join(", ") + (count > few.length ? ` … and ${count - few.length} more` : "");

  /** The shortest number that is this one in single precision. */
  function single(value) {
    const short = [6, 7, 8].map((digits) => Number(value.toPrecision(digits)));
    return short.find((number) => Math.fround(number) === value) ?? value;
  }

  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  function brain(bits) {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, bits << 16);
    return Number(view.getFloat32(0).toPrecision(3));
  }

  // === the curl line ===

  /** A word that a shell takes as it is. */
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  function curl(entry, model, inputs) {
    const binary = model.outputs.some((output) => NO_JSON.includes(output.datatype));
    const head = headText(inputs, binary);
    const url = quote(address(`${pathOf(entry)}/infer`).href);
    const token = state.token ? " -H \"Authorization: Bearer $TOKEN\"" : "";
    const out = binary ? " --output answer.bin" : "";
    if (inputs.every((input) => input.data)) {
      return `curl ${url}${token}${out} -H 'Content-Type: application/json' --data-binary ${quote(head)}`;
    }
    const length = new TextEncoder().encode(head).length;
    const parts = inputs.filter((input) => input.from).map(({ from: [kind, what, prefix] }) => {
      if (kind === "zeros") return `head -c ${what} /dev/zero`;
      const octal = [...(prefix ?? [])].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`);
      return `${octal.length ? `printf '${octal.join("")}'; ` : ""}cat ./${quote(what)}`;
    });
    return `{ printf %s ${quote(head)}; ${parts.join("; ")}; } |\n  curl ${url}${token}${out}`
      + ` -H 'Inference-Header-Content-Length: ${length}' -H 'Content-Type: application/octet-stream' --data-binary @-`;
  }

  // === start ===

  $("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText($("curl").textContent);
      $("copied").textContent = "Copied.";
    } catch {
      // Browsers give the clipboard to pages of https and of this machine only.
      getSelection().selectAllChildren($("curl"));
      $("copied").textContent = "Selected: copy it with the keyboard.";
    }
  };
  $("access").onsubmit = (event) => {
    event.preventDefault();
    state.token = $("token").value;
    $("access").hidden = true;
    refresh();
  };
  addEventListener("hashchange", async () => {
    await select();
    $("model-title").focus();
  });
  json("../v2").then((server) => ($("version").textContent = server.version)).catch(() => {});
  const loop = async () => {
    if (!document.hidden) await refresh();
    setTimeout(loop, REFRESH);
  };
  loop();
})();
