"""What every report is made of: the page around its sections, words, numbers and tables, all in escaped HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from steelshift.report.pictures import Style, finite

BEFORE, AFTER = Style(6, hollow=True), Style(0)


def shell(report: Mapping[str, Any], key_numbers: str, judged: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page around its sections: key, title and body, in HTML; those without a body are left out."""
    sections = [(key, title, body) for key, title, body in sections if body]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    method = escape(str(report.get("method") or "").upper())
    title = f"{method} report · steelshift" if method else "Report · steelshift"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Were any of the names ever not inert, the browser would still load and run nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n"
        f'<p class="eyebrow">steelshift · report of one run{" · " + method if method else ""}</p>\n'
        f"<h1>{as_text(report.get('verdict') or 'This run came without a verdict.')}</h1>\n"
        f'{key_numbers}\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n<main>\n'
        f"{judged}\n"
        + "".join(f'<section id="{key}">\n<h2>{title}</h2>\n{body}\n</section>\n' for key, title, body in sections)
        + "</main>\n</body>\n</html>\n"
    )


def as_text(text: Any) -> str:
    return escape(str(text))


def as_percent(value: Any, digits: int = 1) -> str:
    return f"{100 * float(value):.{digits}f}\u00a0%" if finite(value) else "–"


def as_number(value: Any) -> str:
    """Counts as they are, other numbers to three digits; a dash for what is missing."""
    if isinstance(value, bool) or not finite(value):
        return "–" if value is None or isinstance(value, float) else as_text(value)
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def class_name(classes: Sequence[str], index: Any) -> str:
    """Name of a class by its index, not yet escaped."""
    return classes[int(index)] if finite(index) and 0 <= int(index) < len(classes) else "unknown"


def as_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def figure_of(picture: str, caption: str, title: str = "") -> str:
    if not picture:
        return ""
    head = f"<h3>{title}</h3>" if title else ""
    return f"<figure>{head}{picture}<figcaption>{caption}</figcaption></figure>"


def side_by_side(*figures: str) -> str:
    some = [figure for figure in figures if figure]
    return f'<div class="pair">{"".join(some)}</div>' if some else ""


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    """Cells are HTML already; the first of a row is its head."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    css = f' class="{style}"' if style else ""
    return (
        f'<div class="scroll"><table{css}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
        if any(heads)
        else f'<div class="scroll"><table{css}><tbody>{body}</tbody></table></div>'
    )


def confusion_table(counts: np.ndarray, classes: list[str]) -> str:
    """counts: images (true class, predicted class), in percent of the true class; blue is right, red is wrong."""
    heads = "".join(
        f'<th scope="col"><span>{as_text(class_name(classes, i))}</span></th>' for i in range(counts.shape[1])
    )
    rows = []
    for index, row in enumerate(counts):
        total = row.sum()
        cells = []
        for column, count in enumerate(row):
            share = count / total if total else 0.0
            # Opacity ends at .6, where dark letters on light and light ones on dark stay legible.
            colour = "0,114,178" if column == index else "213,94,0"
            background = f' style="background:rgba({colour},{0.6 * share:.2f})"' if share else ""
            cells.append(f"<td{background}>{f'{100 * share:.0f}' if count else '·'}</td>")
        name = f'<th scope="row">{as_text(class_name(classes, index))}</th>'
        rows.append(f'<tr>{name}{"".join(cells)}<td class="count">{total:g}</td></tr>')
    return (
        '<div class="scroll"><table class="confusion"><thead><tr><th class="corner">true ↓ predicted →</th>'
        f'{heads}<th scope="col"><span>images</span></th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def tiles_of(numbers: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in numbers)


_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f8fa;--ink:#1b2530;--soft:#56626e;--rule:#d5dce3;--accent:#0072b2;
--k0:#0072b2;--k1:#d55e00;--k2:#009e73;--k3:#cc79a7;--k4:#e69f00;--k5:#56b4e9;--k6:#6b7680}
@media screen and (prefers-color-scheme:dark){:root{--paper:#11161b;--card:#192027;--ink:#e6ebf0;--soft:#a3afba;
--rule:#34404b;--accent:#5fb3ec;--k0:#3d9be0;--k1:#f2854a;--k2:#2cc79b;--k3:#e09cc4;--k4:#f0b429;--k5:#a6dbfa;--k6:#a6b1bc}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1120px;padding:28px 24px 64px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"PingFang SC","Microsoft YaHei",
"Noto Sans CJK SC","WenQuanYi Zen Hei",sans-serif;print-color-adjust:exact;-webkit-print-color-adjust:exact;
overflow-wrap:break-word}
h1{font-size:clamp(1.35rem,3.6vw,2rem);line-height:1.25;margin:.3em 0 .7em;letter-spacing:-.01em;max-width:30em}
h2{font-size:1.35rem;line-height:1.3;margin:0 0 .5em}
h3{font-size:1rem;margin:0 0 .6em}
p{margin:0 0 .9em;max-width:46em}
a{color:var(--accent)}
.eyebrow{margin:0;color:var(--soft);font-size:.875rem}
.soft,small{color:var(--soft)}
small{display:block;font-size:.78rem;line-height:1.3}
section{margin-top:44px;scroll-margin-top:12px}
section+section{padding-top:28px;border-top:1px solid var(--rule)}
#judged{border:2px solid var(--accent);border-radius:14px;padding:22px 22px 10px;margin-top:28px}
#judged>h3{margin-top:1.4em}
.sentence{font-size:1.1rem;font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:0}
.tiles>div{display:flex;flex-direction:column-reverse;justify-content:flex-end;background:var(--card);border-radius:10px;
padding:12px 14px}
.tiles dt{color:var(--soft);font-size:.84rem;line-height:1.3}
.tiles dd{margin:0;font-size:1.4rem;font-weight:650;font-variant-numeric:tabular-nums;white-space:nowrap}
nav ul{display:flex;flex-wrap:wrap;gap:6px 18px;list-style:none;padding:0;margin:24px 0 0;font-size:.9rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px;margin-bottom:18px}
figure{margin:0 0 18px;padding:16px;background:var(--card);border-radius:12px;min-width:0;break-inside:avoid}
.pair>figure{margin:0}
figcaption{margin-top:12px;font-size:.9rem;line-height:1.45;color:var(--soft);max-width:52em}
figcaption strong{color:var(--ink)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 8px;text-align:left;vertical-align:middle;border-bottom:1px solid var(--rule)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;font-weight:500;color:var(--soft);vertical-align:bottom;line-height:1.25}
tbody th{font-weight:500}
.numbers td{text-align:right}
.numbers thead th:not(:first-child){text-align:right}
.numbers tbody th{min-width:5.5em}
.numbers td:has(svg){width:34%}
.shares td:has(svg){width:42%}
.scores tbody th{width:36%;font-weight:400}
.scores td:nth-child(2){width:1%;white-space:nowrap;text-align:right}
.scores thead th:nth-child(2){text-align:right}
.who{display:block;font-weight:650;font-size:1.02rem}
.scores .soft{font-size:.84rem;line-height:1.3;display:block}
.scores .soft strong{color:var(--ink)}
.big{font-size:1.65rem;font-weight:680;letter-spacing:-.01em}
.bar{display:block;width:100%;min-width:44px;height:18px;overflow:visible}
.scores .bar{height:26px}
.bars .bar{height:11px}
.bar rect{fill:currentColor;stroke:currentColor;stroke-width:1.5;vector-effect:non-scaling-stroke}
.bar rect.hollow{fill:none}
.bar .track{stroke:var(--rule);stroke-width:1;vector-effect:non-scaling-stroke}
.confusion th,.confusion td{border:1px solid var(--paper);padding:5px;text-align:center;font-size:.84rem}
.confusion tbody th{text-align:right;padding-right:8px;
min-width:5.5em;max-width:9em;overflow-wrap:break-word;line-height:1.2}
.confusion td{min-width:2.3em;background:var(--paper)}
.confusion thead span{display:inline-block;writing-mode:vertical-rl;text-orientation:sideways;
transform:rotate(180deg);max-height:10em;
line-height:1.15;text-align:left;color:var(--ink)}
.confusion .corner{font-size:.72rem;text-align:right}
.confusion .count{color:var(--soft);background:none}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:12px 10px;list-style:none;
margin:0;padding:0}
.cards li{font-size:.8rem;line-height:1.25;min-width:0;break-inside:avoid}
.cards img{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:6px;margin-bottom:5px}
.cards .doubtful img{outline:2px dashed var(--k1);outline-offset:1px}
.chart{display:block;width:100%;height:auto;max-width:640px;margin:0 auto}
.chart text{font-size:12.5px;fill:var(--ink);font-family:inherit;font-variant-numeric:tabular-nums}
.chart text.soft{fill:var(--soft)}
.chart text.strong{font-weight:650;font-size:13.5px}
.chart text.halo{stroke:var(--card);stroke-width:4px;paint-order:stroke;stroke-linejoin:round}
.grid{stroke:var(--rule);stroke-width:1}
.axis,.frame{stroke:var(--rule);stroke-width:1;fill:none}
.axis{stroke:var(--soft)}
.frame{fill:var(--paper)}
.reference{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:4 4;fill:none;vector-effect:non-scaling-stroke}
.chosen{stroke:var(--ink);stroke-width:1.6}
.curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.mark{fill:currentColor;fill-opacity:.78;stroke:none}
.mark.faint{fill-opacity:.3}
.mark.hollow{fill:none;stroke:currentColor;stroke-width:1.3;stroke-opacity:.85}
.mark.outlined{fill-opacity:1;stroke:var(--ink);stroke-width:1.4}
.towards{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:2 3}
.same{stroke:var(--ink);stroke-width:1.2}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:10px 0 0;font-size:.86rem;
line-height:1.3}
.legend li{display:flex;align-items:center;gap:6px;min-width:0}
.swatch{flex:none}
.k0{color:var(--k0)}.k1{color:var(--k1)}.k2{color:var(--k2)}.k3{color:var(--k3)}.k4{color:var(--k4)}.k5{color:var(--k5)}
.k6{color:var(--k6)}
@media (max-width:560px){body{padding:18px 14px 48px}#judged{padding:16px 12px 4px}figure{padding:12px}
.scores thead{display:none}.scores tr{display:grid;grid-template-columns:1fr auto;align-items:center;padding:8px 0;
border-bottom:1px solid var(--rule)}.scores tr:last-child{border:0}
.scores th,.scores td{border:0;padding:2px 4px;width:auto!important}
.scores td:last-child{grid-column:1/-1}.tiles{grid-template-columns:1fr 1fr}.tiles dd{font-size:1.15rem}
.chart text{font-size:14px}.cards{grid-template-columns:repeat(4,minmax(0,1fr));gap:10px 8px}.cards li{font-size:.74rem}
.confusion th,.confusion td{padding:4px 2px}.confusion td{min-width:2em}th,td{padding:5px 5px}}
@media print{body{max-width:none;padding:0;font-size:10pt}nav{display:none}section{margin-top:24px}
.pair{grid-template-columns:1fr 1fr}.pair:has(.confusion){grid-template-columns:1fr}h2,h3,section>p{break-after:avoid}
.scroll{overflow:visible}.cards{grid-template-columns:repeat(4,minmax(0,1fr));gap:8px 6px}figure{padding:10px}
.cards li{font-size:.7rem}}
""".strip()
