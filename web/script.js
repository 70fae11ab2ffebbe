// Only comforts: all pages work without it.
"use strict";

// Buttons that copy the text of an element show themselves where the browser can.
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = button.dataset.copied;
  });
}

// The browser knows the time zone.
for (const field of document.querySelectorAll("[data-zone]")) {
  if (!field.value) field.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
}

// What goes on by itself is looked at again, more often than the page says it.
async function lookAgain(id) {
  const shown = document.getElementById(id);
  const answer = await fetch(location.pathname);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const now = page.getElementById(id);
  if (!answer.ok || !now || !now.dataset.again) return location.reload();
  shown.querySelector("progress").value = now.querySelector("progress").value;
  for (const part of ["table", ".state", "p:has(progress)"]) {
    const before = shown.querySelector(part), after = now.querySelector(part);
    if (before && after && before.innerHTML !== after.innerHTML) before.innerHTML = after.innerHTML;
  }
}
for (const part of document.querySelectorAll("[data-again]")) {
  setInterval(() => lookAgain(part.id).catch(() => {}), 1000 * part.dataset.again);
}

// Whoever sends a form twice by a double click sends it once.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
  });
}
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
