// Uploads an image as soon as it is chosen. Without this script, a button does it.
"use strict";

const form = document.querySelector("form.upload");
const message = form.querySelector(".message");
const input = form.querySelector("input");

input.addEventListener("change", () => {
  const file = input.files[0];
  if (!file) return;
  const isTooLarge = file.size > Number(form.dataset.maxBytes);
  message.hidden = !isTooLarge;
  if (!isTooLarge) form.submit();
});

// Back in the browser's history, the file that was chosen before must not count as chosen.
addEventListener("pageshow", () => form.reset());
