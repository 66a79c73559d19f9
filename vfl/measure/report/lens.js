"use strict";
// The lens: the patch under the pointer, and what its token spells at every state. All texts are set as text.
(() => {
  const pictures = JSON.parse(document.getElementById("lens-data").textContent);
  const at = (id) => document.getElementById(id);
  const [picture, image, grid, rows, says] = ["lens-picture", "lens-image", "lens-grid", "lens-rows", "lens-says"].map(at);
  const TOP = 5;
  let shown = 0; // which picture
  let chosen = null; // which of its tokens
  let mark = null;

  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  const centre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];

  function rectangle([x0, y0, x1, y1], kind) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: kind })) {
      shape.setAttribute(name, value);
    }
    grid.append(shape);
    return shape;
  }

  // Tokens that cover a spot, the smallest first: tiles and thumbnails overlap.
  function covering(x, y) {
    const { regions } = pictures[shown];
    return regions
      .map((box, token) => [box, token])
      .filter(([box]) => box && x >= box[0] && x < box[2] && y >= box[1] && y < box[3])
      .sort((a, b) => area(a[0]) - area(b[0]))
      .map(([, token]) => token);
  }

  function choose(token) {
    if (token === undefined || token === chosen) return;
    chosen = token;
    const { regions, states, tokens, top, share } = pictures[shown];
    if (mark) mark.remove();
    mark = rectangle(regions[token], "chosen");
    const lines = [];
    for (let state = 0; state < states; state++) {
      const line = document.createElement("tr");
      const name = document.createElement("td");
      name.textContent = state === 0 ? "embedding" : `after ${state - 1}`;
      line.append(name);
      for (let place = 0; place < TOP; place++) {
        const flat = (state * regions.length + token) * TOP + place;
        const cell = document.createElement("td");
        cell.className = place ? "entry" : "entry first";
        cell.textContent = tokens[top[flat]];
        const sure = document.createElement("span");
        sure.textContent = `${(share[flat] / 10).toFixed(share[flat] < 100 ? 1 : 0)} %`;
        cell.append(sure);
        line.append(cell);
      }
      lines.push(line);
    }
    rows.replaceChildren(...lines);
    const last = tokens[top[((states - 1) * regions.length + token) * TOP]];
    const [x, y] = centre(regions[token]).map(Math.round);
    const also = covering(x, y).length;
    says.textContent = `Token ${token} of ${regions.length}, around ${x}, ${y}: “${last}” at the last state` +
      (also > 1 ? `; ${also} tokens cover this spot.` : ".");
  }

  function under(event) {
    const box = grid.getBoundingClientRect();
    const [width, height] = pictures[shown].size;
    return covering(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height);
  }

  // The nearest token in a direction; along the direction counts less than across it.
  function step(dx, dy) {
    const { regions } = pictures[shown];
    const [x, y] = centre(regions[chosen]);
    let best;
    let least = Infinity;
    regions.forEach((box, token) => {
      if (!box || token === chosen) return;
      const [u, v] = [centre(box)[0] - x, centre(box)[1] - y];
      const along = u * dx + v * dy;
      if (along < 0.5) return;
      const far = along + 3 * Math.abs(u * dy + v * dx) + Math.abs(Math.log(area(box) / area(regions[chosen]))) * 50;
      if (far < least) [best, least] = [token, far];
    });
    choose(best);
  }

  function next() {
    const [x, y] = centre(pictures[shown].regions[chosen]);
    const there = covering(x, y);
    choose(there[(there.indexOf(chosen) + 1) % there.length]);
  }

  function show(number) {
    shown = (number + pictures.length) % pictures.length;
    const { image: source, size, question, answer, regions, boxes } = pictures[shown];
    image.src = source;
    image.className = size[0] < 300 ? "small" : "";
    grid.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    grid.replaceChildren();
    mark = chosen = null;
    regions.forEach((box) => box && rectangle(box, "patch"));
    boxes.forEach((box) => rectangle(box, "object"));
    at("lens-question").textContent = `${question} Answer: ${answer}.` + (boxes.length ? " Dashed: the object." : "");
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === shown)));
    const [first] = boxes.length ? covering(...centre(boxes[0])) : [];
    choose(first === undefined ? regions.findIndex((box) => box) : first);
  }

  const buttons = pictures.length < 2 ? [] : pictures.map((_, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `picture ${place + 1}`;
    button.addEventListener("click", () => show(place));
    at("lens-choice").append(button);
    return button;
  });
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  picture.addEventListener("pointermove", (event) => {
    const there = under(event);
    if (!there.includes(chosen)) choose(there[0]);
  });
  picture.addEventListener("pointerdown", (event) => {
    const there = under(event);
    if (there.includes(chosen) && event.pointerType === "mouse") next();
    else choose(there[0]);
  });
  picture.addEventListener("keydown", (event) => {
    if (moves[event.key]) step(...moves[event.key]);
    else if (event.key === "Enter") next();
    else if (event.key === "PageDown") show(shown + 1);
    else if (event.key === "PageUp") show(shown - 1);
    else return;
    event.preventDefault();
  });
  show(0);
  document.documentElement.dataset.lens = "ready";
})();
