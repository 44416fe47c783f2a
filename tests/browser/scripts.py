"""What the tests run in a page."""

TYPESET = "() => window.MathJax && MathJax.startup.promise.then(() => true)"

ONLY_OURS = """(others) => {
    document.querySelectorAll(others.join(",")).forEach((e) => e.replaceChildren());
    for (let e = document.querySelector(".bd-article"); e !== document.body; e = e.parentElement)
        for (const beside of [...e.parentElement.children])
            if (beside !== e && !beside.matches("script, style")) beside.remove();
}"""
"""Removes what axe would read and leave out; most of its time goes there."""
AXE = """async (context) => {
    const options = {preload: false, resultTypes: ["violations"]};
    const {violations} = await axe.run(context, options);
    return violations
        .filter((v) => ["serious", "critical"].includes(v.impact))
        .flatMap((v) => v.nodes.map((node) => `${v.id}: ${node.html.slice(0, 200)}`));
}"""
SETTLED = """async () => {
    await new Promise(requestAnimationFrame);
    await Promise.allSettled(document.getAnimations().map((moving) => moving.finished));
}"""
"""Waits for the theme's sidebars, which slide to their place when the width changes."""
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    const wide = (element) => element.getBoundingClientRect().right > width + 1;
    const elements = [...document.querySelectorAll(".bd-article *")].filter(wide);
    const excess = document.documentElement.scrollWidth - width;
    return excess > 0 ? [excess, elements.slice(0, 3).map((e) => e.outerHTML.slice(0, 200))] : [];
}"""
CUT = """() => [...document.querySelectorAll(".bd-article :is(div, p, pre, figure, mjx-container)")]
    .filter((e) => e.checkVisibility() && !e.matches(".hst-player .view"))
    .filter((e) => {
        const wide = e.scrollWidth > e.clientWidth + 1;
        const [inner, outer] = [e, e.parentElement].map((x) => x.getBoundingClientRect().left);
        return (wide && getComputedStyle(e).overflowX === "hidden") || inner < outer - 1;
    })
    .map((e) => e.outerHTML.slice(0, 200))"""
"""What cannot be scrolled into sight: wider than a box that hides the rest, or left of its box."""
SCROLLING = """() => [...document.querySelectorAll(".bd-article :is(.table-scroll, div.math)")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1)
    .map((e) => [e.getAttribute("aria-label") || e.id, e.scrollWidth, e.clientWidth])"""
PALE = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = parts(colour).slice(0, 3).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (e) => {
        const colour = getComputedStyle(e).backgroundColor;
        return parts(colour)[3] === 0 && e.parentElement ? behind(e.parentElement) : colour;
    };
    const texts = ".bd-article :is(.hst-diagram tspan, .hst-player .name, .hst-player output)";
    return [...document.querySelectorAll(texts)].filter((e) => {
        const style = getComputedStyle(e);
        const ink = light(e.tagName === "tspan" ? style.fill : style.color);
        const paper = light(behind(e));
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) < 4.5;
    }).map((e) => e.textContent);
}"""
"""Texts of diagrams and players, which axe does not read, with a contrast below 4.5."""
DULL = """() => [...document.querySelectorAll(".bd-article img")]
    .filter((image) => image.checkVisibility())
    .filter((image) => {
        const canvas = document.createElement("canvas");
        canvas.width = Math.min(image.naturalWidth, 600);
        canvas.height = Math.min(image.naturalHeight, 600);
        if (!canvas.width) return true;
        const brush = canvas.getContext("2d");
        brush.drawImage(image, 0, 0, canvas.width, canvas.height);
        const {data} = brush.getImageData(0, 0, canvas.width, canvas.height);
        let [sum, squares, count] = [0, 0, data.length / 4];
        for (let i = 0; i < data.length; i += 4) {
            const grey = (data[i] + data[i + 1] + data[i + 2]) / 3 * data[i + 3] / 255;
            sum += grey; squares += grey * grey;
        }
        return squares / count - (sum / count) ** 2 < 5 ** 2;
    })
    .map((image) => image.outerHTML.slice(0, 200))"""
"""Pictures whose grey levels, 0 to 255, have a standard deviation below 5."""
DARK = """(theme) => Object.assign(document.documentElement.dataset, {theme, mode: theme})"""
