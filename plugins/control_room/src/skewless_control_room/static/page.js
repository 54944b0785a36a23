// An open page reads again, but never while somebody works in it: no list moves under a cursor or a selection.
"use strict";

function isBusy() {
  const active = document.activeElement;
  const isTyping = active && ["INPUT", "SELECT", "TEXTAREA"].includes(active.tagName);
  const isSelecting = !window.getSelection().isCollapsed;
  return document.hidden || isTyping || isSelecting || document.querySelector("main details[open]") !== null;
}

document.addEventListener("htmx:before:request", (event) => {
  if (event.target.id === "main" && isBusy()) event.preventDefault();
});
