// A link beside each figure's numbers that saves the figure as an SVG file. What the page draws with styles, stretched
// boxes and HTML stands in the file as plain shapes and texts, so that it needs no page, in the colours for paper.
(() => {
  const root = document.documentElement, SVG = "http://www.w3.org/2000/svg", EDGE = 12;
  // How a shape looks, and what need not be said.
  const LOOK = { fill: "", "fill-opacity": "1", stroke: "none", "stroke-width": "1px", "stroke-dasharray": "none",
    "stroke-linecap": "butt", "stroke-linejoin": "miter", opacity: "1" };
  const LEFT_OUT = ".files, table, details, label:has(input:not(:checked))";
  const taken = (block, part) => !part.closest(LEFT_OUT) || part.closest(LEFT_OUT).contains(block);
  const shown = (block, which) => [...block.querySelectorAll(which)].filter(part => taken(block, part));
  const n = value => +value.toFixed(2);

  // A path of the kit: M, L, H, V with places, and h with a length; sx, sy stretch it, left, top move it.
  const path = (d, sx, sy, left, top) => d.replace(/([MLHVhZ])([^MLHVhZ]*)/g, (_, letter, rest) => {
    const numbers = (rest.match(/-?[\d.]+(e-?\d+)?/g) || []).map(Number);
    if (letter === "h") return "h" + n(numbers[0] * sx);
    if (letter === "H") return "H" + n(left + numbers[0] * sx);
    if (letter === "V") return "V" + n(top + numbers[0] * sy);
    return letter + numbers.map((x, at) => n(at % 2 ? top + x * sy : left + x * sx)).join(" ");
  });

  function draw(blocks) {
    const file = document.createElementNS(SVG, "svg");
    let right = 0, bottom = 0, first = Infinity, dx = 0, dy = 0;
    const add = (name, values, like) => {
      const made = document.createElementNS(SVG, name), style = like && getComputedStyle(like);
      for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
      for (const key in like ? LOOK : {}) if (style[key] !== LOOK[key]) made.setAttribute(key, style[key]);
      return file.appendChild(made);
    };
    const within = box => {
      first = Math.min(first, box.left + dx), right = Math.max(right, box.right + dx);
      bottom = Math.max(bottom, box.bottom + dy);
      return { left: box.left + dx, top: box.top + dy, right: box.right + dx, bottom: box.bottom + dy };
    };
    const frame = (left, top, right, bottom, look) =>
      add("rect", { x: n(left), y: n(top), width: n(right - left), height: n(bottom - top), ...look });
    const line = (x1, y1, x2, y2, stroke) => add("line", { x1: n(x1), y1: n(y1), x2: n(x2), y2: n(y2), stroke });

    function shapes(svg) {
      const area = svg.viewBox.baseVal, box = svg.getBoundingClientRect(), place = within(box);
      const sx = box.width / area.width, sy = box.height / area.height;
      const X = value => n(place.left + value * sx), Y = value => n(place.top + value * sy);
      for (const shape of svg.querySelectorAll("path, line, rect")) {
        if ([shape, shape.parentNode].some(e => getComputedStyle(e).display === "none")) continue;
        const at = key => +shape.getAttribute(key), name = shape.localName;
        const values = name === "path" ? { d: path(shape.getAttribute("d"), sx, sy, place.left, place.top) }
          : name === "line" ? { x1: X(at("x1")), y1: Y(at("y1")), x2: X(at("x2")), y2: Y(at("y2")) }
          : { x: X(at("x")), y: Y(at("y")), width: n(at("width") * sx), height: n(at("height") * sy) };
        const made = add(name, values, shape), says = shape.querySelector("title");
        if (says) made.appendChild(document.createElementNS(SVG, "title")).textContent = says.textContent;
      }
    }

    // Words of a text node as lines, each with its box; a word that is broken is taken letter by letter.
    function lines(node, turned) {
      const found = [], range = document.createRange();
      const take = (start, text, gap) => {
        range.setStart(node, start), range.setEnd(node, start + text.length);
        const box = range.getBoundingClientRect(), last = found.at(-1);
        if (range.getClientRects().length > 1 && text.length > 1 && !turned) {
          [...text].reduce((at, letter) => (take(at, letter, at === start ? gap : ""), at + letter.length), start);
        } else if (last && Math.abs(last.box.top - box.top) < 2) {
          last.text += gap + text;
          last.box = new DOMRect(last.box.left, box.top, box.right - last.box.left, box.height);
        } else if (box.width) found.push({ text, box });
      };
      for (const word of node.data.matchAll(turned ? /\S.*/g : /\S+/g)) take(word.index, word[0], " ");
      return found;
    }

    function texts(block) {
      const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
      for (let node; (node = walker.nextNode());) {
        const parent = node.parentElement, style = getComputedStyle(parent), size = parseFloat(style.fontSize);
        if (parent.closest("svg") || !taken(block, parent)) continue;
        const turned = style.transform.startsWith("matrix(") && +style.transform.split(",")[1] !== 0;
        const side = turned || parent.matches(".y") ? "end" : parent.matches(".x") ? "middle" : "start";
        for (const { text, box } of lines(node, turned)) {
          const { left, top, right, bottom } = within(box);
          const x = n(side === "start" ? left : side === "end" ? right : (left + right) / 2);
          const y = n(top + 0.8 * (turned ? size : bottom - top));
          const look = { "font-size": size, "font-weight": style.fontWeight, fill: style.color, "text-anchor": side };
          if (turned) look.transform = `rotate(-35 ${x} ${y})`;
          add("text", { x, y, ...look }).textContent = text;
        }
      }
    }

    root.classList.add("light");
    for (const block of blocks) {
      const box = block.getBoundingClientRect();
      dx = EDGE - box.left, dy = bottom + EDGE - box.top;
      for (const plot of shown(block, ".plot")) {
        const style = getComputedStyle(plot), { left, top, right, bottom } = within(plot.getBoundingClientRect());
        if (parseFloat(style.borderBottomWidth)) line(left, bottom, right, bottom, style.borderBottomColor);
        if (parseFloat(style.borderLeftWidth)) line(left, top, left, bottom, style.borderLeftColor);
        const edge = { fill: "none", stroke: style.outlineColor };
        if (style.outlineStyle === "solid") frame(left, top, right, bottom, edge);
      }
      shown(block, "svg").forEach(shapes);
      for (const spot of shown(block, ".swatch, .scale i")) {
        const { left, top, right, bottom } = within(spot.getBoundingClientRect());
        const rx = spot.matches(".swatch") ? n((right - left) / 2) : 0;
        frame(left, top, right, bottom, { rx, fill: getComputedStyle(spot).backgroundColor });
      }
      texts(block);
    }
    const font = getComputedStyle(document.body).fontFamily;
    root.classList.remove("light");
    const left = Math.min(0, first - EDGE), width = n(right + EDGE - left), height = n(bottom + EDGE);
    const about = { xmlns: SVG, width, height, viewBox: `${n(left)} 0 ${width} ${height}`, "font-family": font };
    for (const [key, value] of Object.entries(about)) file.setAttribute(key, value);
    file.prepend(add("rect", { x: n(left), y: 0, width, height, fill: "#fff" }));
    return new XMLSerializer().serializeToString(file);
  }

  for (const files of document.querySelectorAll(".figure > .files")) {
    const link = document.createElement("a"), figure = files.parentNode, numbers = files.querySelector("a");
    link.textContent = "SVG", link.title = "This figure as a picture", link.href = "#";
    link.download = numbers.download.replace(/csv$/, "svg");
    link.addEventListener("click", () => {
      const legend = figure.closest(".switched")?.querySelector(".legend");
      const blocks = legend && !figure.contains(legend) ? [legend, figure] : [figure];
      link.href = URL.createObjectURL(new Blob([draw(blocks)], { type: "image/svg+xml" }));
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
    files.prepend(link);
  }

  // The space bar ticks a box by itself.
  document.addEventListener("keydown", event => {
    if (event.key === "Enter" && event.target.matches(".legend input")) event.target.click();
  });
})();
