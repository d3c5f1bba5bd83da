// Log text with terminal colours: select-graphic-rendition codes become classes, other escapes are dropped.

// eslint-disable-next-line no-control-regex
const ESCAPE = /\x1b\[([0-9;]*)m|\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]/g;

export class Painter {
  #codes = new Set();

  // Appends the text to the element as spans; the colours carry over to the next call.
  paint(element, text) {
    let position = 0;
    for (const match of text.matchAll(ESCAPE)) {
      this.#append(element, text.slice(position, match.index));
      position = match.index + match[0].length;
      if (match[1] !== undefined) this.#apply(match[1]);
    }
    this.#append(element, text.slice(position));
  }

  #append(element, text) {
    if (!text) return;
    if (!this.#codes.size) return element.append(text);
    const span = document.createElement("span");
    span.className = [...this.#codes].map((code) => `ansi-${code}`).join(" ");
    span.textContent = text;
    element.append(span);
  }

  #apply(list) {
    const codes = list.split(";").map(Number);
    for (let index = 0; index < codes.length; index += 1) {
      let code = codes[index];
      if (code === 38 || code === 48) {
        const indexed = codes[index + 1] === 5;
        const colour = codes[index + 2];
        index += indexed ? 2 : 4;
        if (code === 48 || !indexed || colour > 15) continue;
        code = colour < 8 ? 30 + colour : 82 + colour;
      }
      if (code === 0) this.#codes.clear();
      else if (code === 22) [1, 2].forEach((weight) => this.#codes.delete(weight));
      else if (code === 23 || code === 24) this.#codes.delete(code - 20);
      else if (code >= 1 && code <= 4) this.#codes.add(code);
      else if (code === 39 || (code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
        for (const old of this.#codes) if (old >= 30) this.#codes.delete(old);
        if (code !== 39) this.#codes.add(code);
      }
    }
  }
}
