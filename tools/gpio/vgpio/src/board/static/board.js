// SPDX-License-Identifier: GPL-2.0-only
"use strict";

// Milliseconds that a trace remembers: one byte for each, with a bit for each level seen.
const HISTORY = 20000;
const BOTH = 3;
// With more edges in a second a lamp glows; it does not flash.
const FLASHES = 6;

const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
	const svg = ["svg", "circle", "path", "polygon"].includes(name);
	const it = svg
		? document.createElementNS("http://www.w3.org/2000/svg", name)
		: document.createElement(name);
	for (const [key, value] of Object.entries(attributes))
		it.setAttribute(key, value);
	it.append(...children);
	return it;
}

// Changes the document only where it differs.
function put(it, attribute, value) {
	if (it.getAttribute(attribute) !== value)
		it.setAttribute(attribute, value);
}

function write(it, text) {
	if (it.textContent !== text)
		it.textContent = text;
}

// A line of a device: its level, who drives it, and its past.
class Line {
	constructor({ device, line, name }, now) {
		this.name = name ?? `${device} ${line}`;
		this.place = `${device} ${line}`;
		this.level = 0;
		this.guest = false;
		this.past = new Uint8Array(HISTORY);
		this.filled = Math.floor(now);
		this.mask = 0;
		this.recent = [];
	}

	// Time passes without an edge.
	pass(time) {
		const end = Math.floor(time);
		let at = Math.max(this.filled, end - HISTORY);
		while (at < end)
			this.past[++at % HISTORY] = this.mask;
		this.filled = Math.max(this.filled, end);
	}

	// An edge at `time`, which may be a little before now; level 2 is both, until the next.
	edge(time, level) {
		const start = Math.floor(time);
		const mask = level === 2 ? BOTH : 1 << level;
		if (start > this.filled)
			this.pass(start);
		if (start > this.filled - HISTORY)
			this.past[start % HISTORY] |= mask;
		for (let at = Math.max(start, this.filled - HISTORY) + 1; at <= this.filled; at++)
			this.past[at % HISTORY] = mask;
		this.mask = mask;
		for (let count = level === 2 ? FLASHES : 0; count >= 0; count--)
			this.recent.push(time);
		this.recent.splice(0, this.recent.length - FLASHES - 1);
	}

	settle(level) {
		this.level = level;
		this.mask = 1 << level;
	}

	// From now on the level is not known.
	lose(now) {
		this.pass(now);
		this.mask = 0;
	}

	toggles(now) {
		return this.recent.length > FLASHES && now - this.recent[0] < 1000;
	}
}

// What holds one part of the board, and what is drawn there.
class Part {
	constructor(board, { kind, label, lines, key, active_low, colour, error }) {
		this.board = board;
		this.lines = lines.map((index) => board.lines[index]);
		this.index = lines[0];
		this.low = active_low;
		this.label = label;
		this.key = key;
		this.held = new Set();
		const what = element("span", { class: "label" }, label);
		this.note = element("span", { class: "note" });
		this.root = element("li", { class: `part ${kind}-part` }, what);
		if (error) {
			this.note.classList.add("error");
			this.note.append(error);
			this.root.append(this.note);
			return;
		}
		if (kind === "led" || kind === "line")
			this.addLed(colour);
		if (kind === "digit")
			this.addDigit(colour);
		if (kind === "button")
			this.addButton();
		if (kind === "switch" || kind === "line")
			this.addSwitch();
		this.root.append(this.note);
		if (key && this.control) {
			put(this.control, "aria-keyshortcuts", key);
			what.append(" ", element("kbd", { "aria-hidden": "true" }, key));
		}
	}

	active(line = this.lines[0]) {
		return Boolean(line.level) !== this.low;
	}

	addLed(colour) {
		const rays = "M32 2v6M32 56v6M2 32h6M56 32h6M11 11l4 4M49 49l4 4M11 53l4-4M49 15l4-4";
		this.led = element("svg", { class: `led ${colour}`, viewBox: "0 0 64 64", role: "img" },
			element("circle", { cx: 32, cy: 32, r: 18 }), element("path", { d: rays }));
		this.root.append(this.led);
	}

	addDigit(colour) {
		const bar = (x, y) => [[x, y], [x + 3, y - 3], [x + 21, y - 3], [x + 24, y],
			[x + 21, y + 3], [x + 3, y + 3]];
		const post = (x, y) => bar(0, 0).map(([a, b]) => [x + b, y + a]);
		const shapes = [bar(8, 6), post(33, 7), post(33, 33), bar(8, 58), post(7, 33), post(7, 7),
			bar(8, 32)];
		this.segments = shapes.map((it) => element("polygon", { points: it.join(" ") }));
		if (this.lines.length > 7)
			this.segments.push(element("circle", { cx: 43, cy: 58, r: 3.5 }));
		this.digit = element("svg", { class: `digit ${colour}`, viewBox: "0 0 48 64", role: "img" },
			...this.segments);
		this.root.append(this.digit);
	}

	addSwitch() {
		this.control = element("button", { type: "button", role: "switch", class: "switch" });
		this.control.setAttribute("aria-label", this.label);
		this.control.addEventListener("click", () => this.flip());
		this.root.append(this.control);
	}

	addButton() {
		this.control = element("button", { type: "button", class: "push" });
		this.control.setAttribute("aria-label", this.label);
		const control = this.control;
		control.addEventListener("pointerdown", (event) => {
			if (event.button === 0) {
				control.setPointerCapture(event.pointerId);
				this.press(`pointer ${event.pointerId}`);
			}
		});
		const end = (event) => this.release(`pointer ${event.pointerId}`);
		control.addEventListener("pointerup", end);
		control.addEventListener("pointercancel", end);
		control.addEventListener("lostpointercapture", end);
		control.addEventListener("contextmenu", (event) => event.preventDefault());
		control.addEventListener("keydown", (event) => {
			if (event.key === " " || event.key === "Enter") {
				event.preventDefault();
				this.press(event.key);
			}
		});
		control.addEventListener("keyup", (event) => this.release(event.key));
		control.addEventListener("blur", () => this.releaseAll());
		// A click without a pointer or a key is from assistive technology.
		control.addEventListener("click", (event) => {
			if (event.detail === 0 && !this.held.size) {
				this.press("click");
				setTimeout(() => this.release("click"), 100);
			}
		});
		this.root.append(control);
	}

	usable() {
		return this.board.online && !this.lines[0].guest;
	}

	flip() {
		if (this.usable())
			this.board.order(this.index, !this.lines[0].level, false);
	}

	press(by) {
		if (!this.usable() || this.held.has(by))
			return;
		this.held.add(by);
		if (this.held.size === 1)
			this.board.order(this.index, !this.low, true);
	}

	release(by) {
		if (this.held.delete(by) && !this.held.size)
			this.board.order(this.index, this.low, false);
	}

	releaseAll() {
		for (const by of [...this.held])
			this.release(by);
	}

	keydown() {
		if (this.control.classList.contains("push"))
			this.press("shortcut");
		else
			this.flip();
	}

	draw(now) {
		if (!this.lines.length)
			return;
		const toggles = this.lines[0].toggles(now);
		const on = this.active();
		const word = toggles ? "toggling" : on ? "on" : "off";
		if (this.led) {
			this.led.classList.toggle("lit", on && !toggles);
			this.led.classList.toggle("half", toggles);
			put(this.led, "aria-label", `${this.label}: ${word}`);
		}
		if (this.digit)
			this.drawDigit();
		else if (this.control?.classList.contains("push"))
			this.drawButton(on);
		else
			write(this.note, word);
		if (this.control?.classList.contains("switch")) {
			put(this.control, "aria-checked", String(on));
			write(this.control, on ? "1" : "0");
		}
		if (this.control) {
			put(this.control, "aria-disabled", String(!this.usable()));
			if (this.lines[0].guest)
				write(this.note, `${word}, guest drives`);
		}
	}

	drawButton(on) {
		put(this.control, "aria-pressed", String(on));
		write(this.control, on ? "▼" : "");
		write(this.note, on ? "pressed" : "released");
	}

	drawDigit() {
		let bits = "";
		this.segments.forEach((segment, index) => {
			const on = this.active(this.lines[index]);
			segment.classList.toggle("on", on);
			bits += on ? "1" : "0";
		});
		const shown = glyph(bits);
		put(this.digit, "aria-label", `${this.label}: ${shown}`);
		write(this.note, shown);
	}
}

const GLYPHS = {
	1111110: "0", "0110000": "1", 1101101: "2", 1111001: "3", "0110011": "4", 1011011: "5",
	1011111: "6", 1110000: "7", 1111111: "8", 1111011: "9", 1110111: "A", "0011111": "b",
	1001110: "C", "0111101": "d", 1001111: "E", 1000111: "F", "0000001": "-", "0000000": "blank",
};

// What a digit shows, in words: a character, or the letters of its segments.
function glyph(bits) {
	const segments = bits.slice(0, 7);
	const letters = [...segments].map((bit, index) => bit === "1" ? "abcdefg"[index] : "");
	const point = bits[7] === "1" ? " with point" : "";
	return (GLYPHS[segments] ?? `segments ${letters.join("")}`) + point;
}

// The row of a line: name, level, and its past.
class Trace {
	constructor(line) {
		this.line = line;
		this.note = element("span", { class: "note" });
		this.canvas = element("canvas", { "aria-hidden": "true" });
		this.root = element("li", { class: "trace" },
			element("span", { class: "label", title: line.place }, line.name), this.note, this.canvas);
		this.visible = true;
	}

	describe(now) {
		const { level, guest } = this.line;
		const word = this.line.toggles(now) ? "toggling" : String(level);
		write(this.note, `${word}, ${guest ? "guest" : "host"}`);
	}

	// Draws the last `span` milliseconds, a column of pixels for some of them.
	draw(now, span, colours) {
		this.line.pass(now);
		const { canvas } = this;
		const scale = window.devicePixelRatio;
		const width = Math.round(canvas.clientWidth * scale);
		const height = Math.round(canvas.clientHeight * scale);
		if (canvas.width !== width || canvas.height !== height)
			Object.assign(canvas, { width, height });
		const context = canvas.getContext("2d");
		context.clearRect(0, 0, width, height);
		context.fillStyle = colours.off;
		for (let part = 1; part < 5; part++)
			context.fillRect(Math.round(width * part / 5), 0, 1, height);

		const thick = Math.max(2, Math.round(2 * scale));
		const columns = Math.min(width, span);
		const end = Math.floor(now);
		const step = span / columns;
		const { past } = this.line;
		const wave = new Path2D();
		const fill = new Path2D();
		let start = 0;
		let last = 0;
		let at = end - span;
		for (let column = 0; column <= columns; column++) {
			let mask = 0;
			const next = end - span + Math.round((column + 1) * step);
			for (; at < next && column < columns; at++)
				mask |= past[(at + 1 + HISTORY) % HISTORY];
			if (mask === last && column < columns)
				continue;
			const x = start * width / columns;
			const run = (column - start) * width / columns;
			if (last & 2)
				wave.rect(x, 0, run, thick);
			if (last === BOTH)
				wave.rect(x, 0, Math.max(run, 1), height);
			else if (last === 2)
				fill.rect(x, 0, run, height);
			if (last & 1)
				wave.rect(x, height - thick, run, thick);
			// An edge at the border of two columns.
			if (last && mask && last !== BOTH && mask !== BOTH)
				wave.rect(column * width / columns - thick / 2, 0, thick, height);
			start = column;
			last = mask;
		}
		context.fillStyle = colours.fill;
		context.fill(fill);
		context.fillStyle = colours.wave;
		context.fill(wave);
	}
}

class Board {
	constructor() {
		this.epoch = null;
		this.lines = [];
		this.parts = [];
		this.traces = [];
		this.online = false;
		this.paused = false;
		// From our clock to the daemon's.
		this.offset = -Infinity;
		this.changed = false;
		this.frame = this.frame.bind(this);
		this.visibility = new IntersectionObserver((entries) => {
			for (const { target, isIntersecting } of entries) {
				const trace = this.traces.find((it) => it.root === target);
				if (trace)
					trace.visible = isIntersecting;
			}
		});
		document.addEventListener("keydown", (event) => this.keydown(event));
		document.addEventListener("keyup", (event) => this.withKey(event.key)?.release("shortcut"));
		window.addEventListener("blur", () => this.releaseAll());
		$("pause").addEventListener("click", () => {
			this.paused = !this.paused;
			put($("pause"), "aria-pressed", String(this.paused));
		});
		requestAnimationFrame(this.frame);
		this.connect();
	}

	connect() {
		const url = new URL("messages", location.href);
		url.protocol = "ws:";
		this.socket = new WebSocket(url);
		this.socket.onmessage = ({ data }) => this.news(JSON.parse(data));
		this.socket.onclose = () => {
			this.say("The board has gone; trying again", false);
			setTimeout(() => this.connect(), 500);
		};
	}

	say(text, online) {
		this.online = online;
		this.changed = true;
		document.body.classList.toggle("offline", !online);
		write($("status"), text);
		if (!online) {
			this.releaseAll();
			this.lines.forEach((it) => it.lose(performance.now() + this.offset));
		}
	}

	releaseAll() {
		this.parts.forEach((part) => part.releaseAll());
	}

	order(line, level, held) {
		if (this.socket.readyState === WebSocket.OPEN)
			this.socket.send(JSON.stringify({ epoch: this.epoch, line, level, held }));
	}

	// What the server says: see message.rs.
	news({ epoch, panel, trouble, devices, now, levels, guest, edges }) {
		const time = now / 1000;
		this.offset = Math.max(this.offset, time - performance.now());
		if (panel && epoch !== this.epoch)
			this.build(panel, time);
		this.epoch = epoch;
		const guests = devices.map(([label, there]) => `${label}: ${there ? "guest connected" : "no guest"}`);
		this.say(trouble ? `No devices: ${trouble}; trying again` : guests.join(" · "), !trouble);

		for (const [line, changes] of edges)
			for (const [at, level] of changes)
				this.lines[line].edge(at / 1000, level);
		this.lines.forEach((line, index) => {
			line.settle(Number(levels[index]));
			line.guest = guest[index] === "1";
		});
		this.changed = true;
	}

	build(panel, now) {
		write($("title"), panel.title);
		document.title = panel.title;
		this.lines = panel.lines.map((it) => new Line(it, now));
		this.parts = panel.parts.map((it) => new Part(this, it));
		this.traces = this.lines.map((it) => new Trace(it));
		this.visibility.disconnect();
		this.traces.forEach((it) => this.visibility.observe(it.root));
		$("parts").replaceChildren(...this.parts.map((it) => it.root));
		$("traces").replaceChildren(...this.traces.map((it) => it.root));
		$("left-out").hidden = !panel.left_out;
		write($("left-out"), `${panel.left_out} more lines: a board file selects what is shown.`);
	}

	withKey(key) {
		return this.parts.find((it) => it.control && it.key === key);
	}

	keydown(event) {
		if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select"))
			return;
		const part = this.withKey(event.key);
		if (part) {
			event.preventDefault();
			if (!event.repeat)
				part.keydown();
		}
	}

	frame() {
		requestAnimationFrame(this.frame);
		const now = performance.now() + this.offset;
		// What toggles has to be seen to stop.
		const second = Math.floor(now / 250);
		if (this.changed || second !== this.second) {
			this.parts.forEach((it) => it.draw(now));
			this.traces.forEach((it) => it.describe(now));
			this.changed = false;
			this.second = second;
		}
		if (this.paused || !this.online)
			return;
		const style = getComputedStyle(document.documentElement);
		const colours = {};
		for (const name of ["wave", "fill", "off"])
			colours[name] = style.getPropertyValue(`--${name}`);
		const span = Number($("window").value);
		for (const trace of this.traces)
			if (trace.visible)
				trace.draw(now, span, colours);
	}
}

window.board = new Board();
