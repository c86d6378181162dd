// A place to drop files, or to click and choose them. They go to the kernel in pieces, each one acknowledged, so that no
// server's limit on one message (10 MB in plain JupyterLab) cuts the connection, and none of it is saved in the notebook.
const PIECE = 4 * 2 ** 20, MB = 2 ** 20;

function render({ model, el }) {
  el.innerHTML = `<style>
    .pk-drop { display: inline-flex; max-width: 100%; margin: 2px 8px 2px 2px; font: 13px sans-serif }
    .pk-drop button { min-height: 30px; padding: 4px 12px; font: inherit; color: inherit; background: transparent;
      border: 2px dashed #888; border-radius: 4px; cursor: pointer; white-space: normal; overflow-wrap: anywhere }
    .pk-drop.over button { border-color: #0072B2; background: #0072B233 } .pk-drop button.clear { border: none; padding: 4px 8px }
    .pk-drop [hidden] { display: none } </style>`;
  const root = document.createElement("div"), zone = document.createElement("button");
  const clear = document.createElement("button"), input = document.createElement("input");
  root.className = "pk-drop";
  Object.assign(clear, { className: "clear", textContent: "×", title: "take it away", hidden: true });
  Object.assign(input, { type: "file", hidden: true, multiple: model.get("multiple"), accept: model.get("accept") });
  root.append(zone, clear, input);
  el.append(root);
  let acknowledged = () => {}, sending = false;
  const say = text => { zone.textContent = text || model.get("description"); };
  say();

  async function pieces(files, total) {
    let sent = 0;
    for (const [number, file] of files.entries()) {
      for (let at = 0; at < file.size || at === 0; at += PIECE) {
        const piece = await file.slice(at, at + PIECE).arrayBuffer(), answer = new Promise(done => { acknowledged = done; });
        const last = number === files.length - 1 && at + PIECE >= file.size;
        model.send({ file: number, name: file.name, first: number === 0 && at === 0, last }, undefined, [piece]);
        await answer;
        sent += piece.byteLength;
        say(`${Math.floor((100 * sent) / total)} % of ${(total / MB).toFixed(1)} MB`);
      }
    }
  }

  async function take(list) {
    const files = [...list], total = files.reduce((sum, file) => sum + file.size, 0), limit = model.get("limit_mb");
    if (!files.length || sending) return;
    if (files.length > 1 && !model.get("multiple")) return say(`${files.length} files; one at a time, please.`);
    if (total > limit * MB) return say(`${Math.ceil(total / MB)} MB; at most ${limit} MB go through the browser.`);
    sending = true;
    try {
      await pieces(files, total || 1);
      say(files.length > 1 ? `${files.length} files` : files[0].name);
      clear.hidden = false;
    } catch (error) { // a folder has no bytes
      say(`${files[0].name} can't be read here; a folder is dropped as a zip.`);
    }
    sending = false;
  }

  model.on("msg:custom", () => acknowledged());
  model.on("change:description", () => say());
  zone.onclick = () => input.click();
  input.onchange = () => take(input.files).then(() => { input.value = ""; });
  clear.onclick = () => { model.send({ first: true, last: true }); clear.hidden = true; say(); };
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) root.addEventListener(name, event => {
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("over", name.endsWith("er"));
    if (name === "drop") take(event.dataTransfer.files);
  });
}
export default { render };
