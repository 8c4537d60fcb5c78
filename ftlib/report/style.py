# ruff: noqa: E501 - lines of markup are as long as what they hold
"""The report's style sheet. Colours come from `palette`; sizes are few, and figures align by their digits."""

STYLE = """
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:5rem;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:400 1rem/1.6 -apple-system,BlinkMacSystemFont,
"Segoe UI",Roboto,Inter,"Noto Sans","Liberation Sans","Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;
overflow-wrap:break-word}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
a{color:var(--accent);text-underline-offset:.18em;text-decoration-thickness:1px}
p{margin:0 0 .9rem;max-width:68ch}
h1,h2,h3{line-height:1.2;letter-spacing:-.015em;margin:0;text-wrap:balance}
h2{font-size:1.5rem;font-weight:650}
h3{font-size:1rem;font-weight:650;letter-spacing:0;margin:2.2rem 0 .6rem}
figure{margin:1.4rem 0 0}
.soft{color:var(--soft)}
.small,small{font-size:.8125rem;line-height:1.45}
.num{text-align:right;white-space:nowrap}
.skip{position:absolute;left:-999px}
.skip:focus{left:1rem;top:1rem;background:var(--raised);padding:.5rem 1rem;z-index:9}
tr[hidden]{display:none!important}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.narrow{display:none}

/* frame: a quiet rail of contents beside the text */
.page{display:grid;grid-template-columns:11.5rem minmax(0,54rem);gap:4.5rem;max-width:76rem;margin:0 auto;padding:0 2rem}
.rail{position:sticky;top:0;align-self:start;height:100vh;padding:3.4rem 0 2rem;display:flex;flex-direction:column}
.rail ol{list-style:none;margin:0;padding:0;font-size:.8125rem;line-height:1.35;overflow-y:auto}
.rail li a{display:block;padding:.32rem 0 .32rem .9rem;color:var(--soft);text-decoration:none;border-left:1px solid var(--line)}
.rail li a:hover{color:var(--ink)}
.rail li a[aria-current]{color:var(--accent);border-left-color:var(--accent);box-shadow:inset 1px 0 var(--accent);font-weight:600}
.brand{font-size:.8125rem;font-weight:650;margin:0 0 1.2rem;padding-left:.9rem}
.brand span{display:block;font-weight:400;color:var(--soft)}
.theme{font:inherit;font-size:.8125rem;color:var(--soft);background:none;border:1px solid var(--line);border-radius:99px;
padding:.3rem .8rem .3rem .6rem;margin:1.4rem 0 0 .9rem;cursor:pointer;display:inline-flex;gap:.45rem;align-items:center;align-self:start}
.theme:hover{color:var(--ink);border-color:var(--edge)}
.theme svg{width:14px;height:14px;fill:currentColor}
main{padding:3.1rem 0 3rem;min-width:0}
main>section{padding:2.8rem 0 0;margin:3.2rem 0 0;border-top:1px solid var(--line)}
main>section:first-child{padding-top:0;margin-top:0;border:0}
section>h2+p{margin-top:.7rem}
.lead{color:var(--soft)}
.lead b,.lead bdi,.finding bdi{color:var(--ink);font-weight:600}

/* headline */
.eyebrow{font-size:.875rem;color:var(--soft);margin:0 0 1.1rem;max-width:none}
.eyebrow b{color:var(--ink);font-weight:650}
h1{font-size:clamp(1.9rem,1.2rem + 2.8vw,2.9rem);font-weight:680;letter-spacing:-.028em;line-height:1.08}
h1 em{font-style:normal;color:var(--accent)}
.finding{font-size:1.125rem;line-height:1.6;margin:1.3rem 0 0;max-width:62ch;text-wrap:pretty}
.figures{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));margin:2.4rem 0 0}
.figures>div{border-left:1px solid var(--line);padding:.1rem 1rem .1rem 1.15rem;display:flex;flex-direction:column}
.figures dt{font-size:.8125rem;color:var(--soft);line-height:1.35;order:1}
.figures .value{order:2;margin:.25rem 0 .2rem;font-size:1.85rem;line-height:1.15;font-weight:650;letter-spacing:-.02em;white-space:nowrap}
.figures .note{order:3;font-size:.8125rem;line-height:1.35;color:var(--soft);margin:0}
.figures>div:first-child{border-left:2px solid var(--accent)}
.figures dd{margin:0}

/* tables */
.scroll{position:relative;overflow-x:auto;margin:1.3rem -.5rem 0;padding:0 .5rem;scrollbar-width:thin}
table{border-collapse:collapse;width:100%;font-size:.875rem;line-height:1.4}
caption{text-align:left;color:var(--soft);font-size:.8125rem;padding:0 0 .7rem;max-width:68ch}
th,td{padding:.5rem .6rem;text-align:left;vertical-align:middle;border-bottom:1px solid var(--line);font-weight:400}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
thead th{font-size:.75rem;color:var(--soft);vertical-align:bottom;padding-top:.2rem;padding-bottom:.4rem;border-bottom-color:var(--edge);line-height:1.3}
thead th.num{white-space:normal}
tbody th{font-weight:600;overflow-wrap:anywhere;min-width:6rem}
tbody tr:last-child>*{border-bottom:0}
td.best{font-weight:650}
.sort{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;text-align:inherit;line-height:inherit}
.sort{position:relative;white-space:nowrap}
.sort::after{content:"";position:absolute;left:100%;margin-left:.15em}
.num .sort::after{left:auto;right:100%;margin:0 .15em 0 0}
.sort:hover{color:var(--ink)}
[aria-sort=ascending] .sort::after{content:"↑"}
[aria-sort=descending] .sort::after{content:"↓"}
.sticky td:first-child,.sticky th:first-child{position:sticky;left:0;background:var(--paper);z-index:1}
.more{font:inherit;font-size:.875rem;color:var(--accent);background:none;border:1px solid var(--line);border-radius:6px;padding:.4rem .9rem;margin:.9rem 0 0;cursor:pointer}
.more:hover{border-color:var(--accent)}
.tag{display:inline-block;font-size:.6875rem;font-weight:600;line-height:1.35;padding:.05rem .4rem;border-radius:4px;vertical-align:.1em;white-space:nowrap;background:var(--sunken);color:var(--soft)}
.tag.win{background:var(--accent);color:var(--paper)}
.key{width:11px;height:11px;display:inline-block;vertical-align:-.05em;overflow:visible;flex:none}

/* leaderboard: numbers and their dots in one row */
.board td:first-child{white-space:normal}
.board .name{display:flex;gap:.55rem;align-items:baseline}
.board .name .key{transform:translateY(.04em)}
.board .name b{font-weight:600}
.board .detail{color:var(--soft);font-size:.75rem;font-weight:400;display:block;line-height:1.35}
.board tr.chosen td,.board tr.chosen th{background:var(--wash)}
.board tbody th{padding-left:.6rem;min-width:10.5rem}
.board thead th:first-child{padding-left:.6rem}
.board td:last-child,.board thead th:last-child{padding-right:.6rem}
.board .plot{width:34%;min-width:9rem;padding:0 .6rem}
.track{position:relative;display:block;height:2.9rem}
.track i{position:absolute;display:block}
.track .tick{top:0;bottom:0;width:1px;background:var(--line)}
.track .line{top:0;bottom:0;width:0;border-left:1px dashed var(--edge)}
.track .bar{top:calc(50% - 1px);height:2px;background:var(--edge)}
.track .bar::before,.track .bar::after{content:"";position:absolute;top:-3px;height:8px;width:2px;background:inherit}
.track .bar::after{right:0}
.chosen .track .bar{background:var(--accent)}
.track svg{position:absolute;top:calc(50% - 5.5px);margin-left:-5.5px}
.axis{position:relative;display:block;height:1.1rem;font-variant-numeric:tabular-nums}
.axis span{position:absolute;transform:translateX(-50%)}
.mark.member{fill:var(--paper);stroke:var(--edge);stroke-width:2}
.mark.fusion{fill:var(--edge);stroke:var(--paper);stroke-width:1}
.mark.baseline{fill:var(--edge);stroke:var(--paper);stroke-width:1}
.mark.member.chosen{stroke:var(--accent);stroke-width:2.5}
.mark.fusion.chosen,.mark.baseline.chosen{fill:var(--accent)}
.legend{display:flex;flex-wrap:wrap;gap:.35rem 1.3rem;margin:.9rem 0 0;padding:0;list-style:none;font-size:.8125rem;color:var(--soft)}
.legend li{display:flex;gap:.45rem;align-items:center}
.swatch{width:.8rem;height:.8rem;border-radius:2px;flex:none}

/* charts */
.chart{display:block;max-width:100%;height:auto;overflow:visible;font-family:inherit}
.chart text{font-size:12px;fill:var(--ink)}
.chart text.tick{font-size:11px;fill:var(--soft)}
.chart text.axis-name{font-size:11px;fill:var(--soft)}
.chart text.name{font-size:12px;paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.chart text.chosen{font-weight:650;fill:var(--accent)}
.chart text.count{font-size:14px;font-weight:600}
.chart text.share{font-size:11px}
.grid{stroke:var(--line);stroke-width:1}
.zero{stroke:var(--edge);stroke-width:1}
.whisker{stroke:var(--edge);stroke-width:1.5;opacity:.75}
.whisker.chosen{stroke:var(--accent);opacity:1}
.leader{stroke:var(--edge);stroke-width:.75}
.loss,.loss-raw,.metric,.ghost{fill:none;stroke-linejoin:round;stroke-linecap:round}
.loss{stroke:var(--soft);stroke-width:1.75}
.loss-raw{stroke:var(--ghost);stroke-width:1}
.metric{stroke:var(--accent);stroke-width:2}
.ghost{stroke:var(--ghost);stroke-width:1.25}
.check{fill:var(--accent)}
.best-dot{fill:var(--paper);stroke:var(--accent);stroke-width:2.5}
.best-line{stroke:var(--accent);stroke-width:1;stroke-dasharray:2 3}
.diagonal{stroke:var(--edge);stroke-width:1;stroke-dasharray:4 3}
.gap{stroke:var(--accent);stroke-width:2;opacity:.45}
.gap.over{stroke:var(--warn)}
.mark.bin{fill:var(--accent)}
.mark.bin.over{fill:var(--warn)}
.counts{fill:var(--ghost)}
.dot{fill:var(--accent);fill-opacity:.42}
rect.bar{fill:var(--accent);fill-opacity:.8}
.matrix-frame{fill:var(--sunken)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:2.2rem 2.4rem;margin:1.8rem 0 0}
.cards.third{grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr));gap:2rem 1.6rem}
.card{min-width:0}
.card h3{margin:0 0 .8rem;font-size:.9375rem;display:flex;gap:.5rem;align-items:baseline;flex-wrap:wrap}
.card h3 bdi,.weights th{overflow-wrap:anywhere;min-width:0}
.weights th{min-width:4.5rem}
.card h3 span{font-weight:400;color:var(--soft);font-size:.8125rem}
.pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(15rem,20rem);gap:2.4rem;align-items:start}
.chart-scroll{position:relative;overflow-x:auto;scrollbar-width:thin;padding-bottom:.3rem}
.chart-scroll .chart{max-width:none}

/* bars inside tables */
.meter{position:relative;display:block;height:.5rem;min-width:4rem;background:var(--sunken);border-radius:2px}
.meter i{position:absolute;left:0;top:0;bottom:0;background:var(--accent);border-radius:2px;opacity:.85}
.meter u{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
.stack{display:flex;height:.8rem;min-width:8rem;gap:1px;overflow:hidden;border-radius:2px}
.stack i{display:block;min-width:0}
.s-found,.s-agree-right{background:var(--b6)}
.s-split-right{background:repeating-linear-gradient(135deg,var(--b6) 0 2px,var(--b2) 2px 5px)}
.s-missed,.s-agree-wrong{background:var(--o6)}
.s-false,.s-split-wrong{background:repeating-linear-gradient(135deg,var(--o6) 0 2px,var(--o2) 2px 5px)}
.stack.tall{height:2.2rem}
.weights td{text-align:center}
.weights td span{display:block;padding:.3rem .4rem;border-radius:3px}

/* staircase of the data */
.stairs{margin:1.6rem 0 0;font-size:.875rem;width:100%}
.stairs th,.stairs td{border:0;padding:.22rem .6rem}
.stairs th{width:13rem;padding-left:0;line-height:1.3}
.stairs td.way{width:auto;padding-left:0;padding-right:0}
.stairs .num{width:5rem}
.stairs .part{width:4.2rem;color:var(--soft);padding-right:0}
.way span{position:relative;display:block;height:1.15rem;background:linear-gradient(var(--sunken),var(--sunken))}
.way i{position:absolute;top:0;bottom:0;min-width:2px;border-radius:2px}
.read .way i{background:var(--edge)}
.kept .way i{background:var(--accent)}
.split .way i{background:var(--accent);opacity:.62}
.lost .way i{background:var(--warn)}
.lost th{font-weight:400;color:var(--soft);padding-left:.9rem}
.split th{font-weight:400;padding-left:.9rem}
.stairs .note{display:block;font-size:.75rem;font-weight:400;color:var(--soft)}
.lengths{position:relative;display:block;height:1rem;min-width:9rem}
.lengths i{position:absolute;top:calc(50% - 1px);height:2px;background:var(--ghost);left:0}
.lengths i.most{background:var(--b4);height:8px;top:calc(50% - 4px);border-radius:2px}
.lengths u{position:absolute;width:2px;top:1px;bottom:1px;background:var(--ink)}

/* worst errors */
.errors td{vertical-align:top}
.errors td{overflow-wrap:anywhere;min-width:7rem}
.errors .said{width:30%;min-width:11rem}
.errors .text{min-width:15rem;line-height:1.5}
.errors details[open] summary .head{display:none}
.errors summary{cursor:pointer;list-style:none}
.errors summary::-webkit-details-marker{display:none}
.errors summary::after{content:"more";color:var(--accent);font-size:.75rem;margin-left:.4rem;white-space:nowrap}
.errors details[open] summary::after{content:"less";margin-left:0}
.verdict{display:flex;flex-direction:column;gap:.1rem}
.votes{list-style:none;margin:0;padding:0;font-size:.8125rem;line-height:1.45}
.votes li{display:grid;grid-template-columns:1rem 1fr;column-gap:.2rem}
.votes .m{color:var(--soft)}
.right{color:var(--accent)}
.wrong{color:var(--warn)}
.wording{display:block}
.wording b{font-weight:400;font-size:.75rem;color:var(--soft);display:block}
.wording+.wording{margin-top:.5rem}
.wording.why{font-size:.75rem;line-height:1.4;color:var(--soft)}
.heat{border-radius:3px;padding:.05em .12em;margin:0 -.12em;-webkit-box-decoration-break:clone;box-decoration-break:clone}
mark{color:inherit;background:none;border-radius:3px;padding:.05em .2em;-webkit-box-decoration-break:clone;box-decoration-break:clone}
mark small{font-size:.6875rem;margin-left:.3em;opacity:.85;white-space:nowrap}
mark.both{background:var(--sunken)}
mark.right{background:var(--wash);box-shadow:inset 0 -2px var(--accent)}
mark.wrong{background:var(--warn-wash);box-shadow:inset 0 -2px var(--warn)}
.tag.lost{background:var(--warn-wash);color:var(--warn)}

/* slices */
.slices .plot{width:32%;min-width:8rem;padding:0 .6rem}
.slices .track{height:1.7rem}
.slices tbody th{min-width:9rem}
.small-slice td,.small-slice th{color:var(--soft)}
.small-slice .track{opacity:.55}

/* parameters and run */
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1rem 1.6rem;margin:1.4rem 0 0;font-size:.875rem;line-height:1.4}
.facts dt{color:var(--soft);font-size:.75rem}
.made td,.made th{vertical-align:top}
.facts dd{margin:0}
.params{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.75rem;line-height:1.55;color:var(--soft)}
.params span{display:inline-block;margin-right:1rem}
.params b{font-weight:400;color:var(--ink)}
.made td:nth-child(2){min-width:13rem}
details.fold{margin:1.6rem 0 0}
details.fold>summary{cursor:pointer;color:var(--accent);font-size:.875rem;width:max-content;max-width:100%}
footer{border-top:1px solid var(--line);margin-top:3.6rem;padding-top:1.6rem;font-size:.8125rem;color:var(--soft)}
footer h2{font-size:1rem;color:var(--ink);letter-spacing:0;margin:0 0 .6rem}
footer table{font-size:.8125rem}
footer>p{margin:1.8rem 0 2.4rem}
footer .runs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:0 3rem}

@media (max-width:62rem){
.page{display:block;padding:0 1.25rem;max-width:54rem}
.rail{position:sticky;top:0;height:auto;padding:.5rem 0;margin:0 -1.25rem;flex-direction:row;align-items:center;background:var(--paper);border-bottom:1px solid var(--line);z-index:5}
.brand{display:none}
.rail ol{display:flex;overflow-x:auto;white-space:nowrap;scrollbar-width:none;flex:1;padding:0 1.25rem;-webkit-mask-image:linear-gradient(90deg,#0000,#000 1.2rem calc(100% - 1.6rem),#0000);mask-image:linear-gradient(90deg,#0000,#000 1.2rem calc(100% - 1.6rem),#0000)}
.rail li a{border:0;padding:.4rem .55rem}
.rail li a[aria-current]{box-shadow:none}
.theme{margin:0 1.25rem 0 .3rem;padding:.45rem;align-self:center;flex:none}
.theme span{display:none}
main{padding-top:2.2rem}
}
@media (max-width:44rem){
.page{padding:0 1rem}
th,td{padding-left:.35rem;padding-right:.35rem}
.rail{margin:0 -1rem}
main>section{padding-top:2.4rem;margin-top:2.6rem}
.finding{font-size:1.0625rem}
.wide{display:none}
.narrow{display:block}
.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:1.5rem 0}
.figures>div{padding-right:.6rem}
.figures .value{font-size:1.6rem}
.pair{grid-template-columns:minmax(0,1fr);gap:1.6rem}
.facts{grid-template-columns:1fr 1fr}
/* a leaderboard row becomes three lines: name and score, the dot, the small figures */
.board,.board tbody,.board caption{display:block}
.board thead{display:block;border-bottom:1px solid var(--edge);padding-bottom:.3rem}
.board thead tr{display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.board thead th{border:0;padding:0!important;text-align:left}
.board thead th.plot{display:block;width:100%;order:9;padding-top:.3rem!important}
.board tbody tr{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));column-gap:.5rem;padding:.8rem 0 .7rem;border-bottom:1px solid var(--line)}
.board tbody tr.chosen{background:var(--wash);margin:0 -.6rem;padding:.8rem .6rem .7rem}
.board tbody tr.chosen>*{background:none}
.board tbody th,.board tbody td{border:0;padding:0!important;text-align:left}
.board tbody th{grid-column:1/5}
.board tbody td.score{text-align:right;font-size:1.25rem;font-weight:650;line-height:1.2;grid-column:5;grid-row:1}
.board tbody td.plot{grid-column:1/-1;grid-row:2;width:auto}
.board .track{height:2.1rem}
.board td[data-label]::before{content:attr(data-label);display:block;font-size:.6875rem;color:var(--soft);line-height:1.3}
.board td.score::before{font-weight:400}
.board td.none{display:none}
.stairs,.stairs tbody{display:block}
.stairs tr{display:grid;grid-template-columns:minmax(0,1fr) auto 3.4rem;margin-bottom:.45rem}
.stairs th{width:auto;padding:0;grid-row:1}
.stairs td{padding:0!important;grid-row:1}
.stairs .num,.stairs .part{width:auto}
.stairs td.way{grid-row:2;grid-column:1/-1}
.lost th,.split th{padding-left:0}
/* a worst error becomes a short block */
.errors,.errors tbody,.errors caption{display:block}
.errors thead{display:none}
.errors tbody tr{display:grid;grid-template-columns:1fr 1fr;gap:.4rem 1rem;padding:.9rem 0;border-bottom:1px solid var(--line)}
.errors tbody td{border:0;padding:0;min-width:0!important;width:auto!important}
.errors .text,.errors .said{grid-column:1/-1}
.errors td[data-label]::before{content:attr(data-label);display:block;font-size:.6875rem;color:var(--soft);line-height:1.3}
}
@media print{
body{font-size:10pt;background:#fff}
.page{display:block;max-width:none;padding:0}
.rail,.more,.skip{display:none}
main{padding:0}
main>section{padding-top:1.2rem;margin-top:1.4rem}
h2,h3,caption{break-after:avoid}
tr,.card,.figures,svg,.stack{break-inside:avoid}
tr[hidden]{display:table-row!important}
.scroll,.chart-scroll{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
