// Makes the form of /try quicker: drop a photo, see the answer without a new page. Without this file the form works too.
"use strict";

const form = document.querySelector("form");
const drop = document.querySelector(".drop");
const photo = document.querySelector("#photo");
const button = form.querySelector("button");

document.body.classList.add("with-script");

async function ask() {
  if (!form.reportValidity()) return;
  button.disabled = true;
  button.textContent = "Asking…";
  try {
    const reply = await fetch(form.action, { method: "POST", body: new FormData(form) });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const part of ["#answer", "footer"]) {
      document.querySelector(part).replaceChildren(...page.querySelector(part).childNodes);
    }
    document.title = page.title;
  } catch {
    const line = document.createElement("p");
    line.className = "problem";
    line.textContent = "✗ No answer came. Check the connection and ask again.";
    document.querySelector("#answer").replaceChildren(line);
  } finally {
    button.disabled = false;
    button.textContent = "Ask";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
photo.addEventListener("change", ask);
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  drop.addEventListener(name, () => drop.classList.remove("over"));
}
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) {
    photo.files = event.dataTransfer.files;
    ask();
  }
});
