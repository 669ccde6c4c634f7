// Asks for this page again and takes over what differs: what is open stays open, what is typed stays typed.
(() => {
  "use strict";
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const text = document.getElementById("pulse-text");
  if (!live || !live.dataset.every) return;

  const key = (node) => (node.nodeType === 1 && node.id ? node.id : "");
  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  // A person's own doings: the server knows nothing of them.
  const kept = (node, name) => node.nodeName === "DETAILS" && name === "open";

  function attributes(from, to) {
    for (const { name, value } of to.attributes) {
      if (!kept(from, name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      if (!kept(from, name) && !to.hasAttribute(name)) from.removeAttribute(name);
    }
  }

  function morph(from, to) {
    if (from.nodeType !== 1) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    attributes(from, to);
    let old = from.firstChild;
    for (const want of [...to.childNodes]) {
      let found = old;
      while (found && !same(found, want)) {
        const stays = !key(want) && (key(found) || want.nodeType !== 1);
        found = stays ? null : found.nextSibling;
      }
      if (!found) {
        from.insertBefore(document.importNode(want, true), old);
        continue;
      }
      while (old !== found) {
        const gone = old;
        old = old.nextSibling;
        if (key(gone) && [...to.children].some((c) => key(c) === key(gone))) from.appendChild(gone);
        else gone.remove();
      }
      old = old.nextSibling;
      morph(found, want);
    }
    while (old) {
      const gone = old;
      old = old.nextSibling;
      gone.remove();
    }
  }

  let misses = 0;
  async function look() {
    if (document.hidden) return again(1000);
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (answer.status >= 500) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!fresh) throw new Error("not a page of ours");
      morph(live, fresh);
      document.title = page.title;
      text.textContent = page.getElementById("pulse-text").textContent;
      pulse.className = "pulse on";
      misses = 0;
    } catch {
      misses += 1;
      if (misses > 1) {
        pulse.className = "pulse lost";
        text.textContent = "Skep does not answer; what is shown is old";
      }
    }
    again(Math.min(Number(live.dataset.every || 5000) * (1 + misses), 15000));
  }
  const again = (after) => setTimeout(look, after);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) pulse.className = "pulse"; });
  pulse.className = "pulse on";
  again(Number(live.dataset.every));
})();
