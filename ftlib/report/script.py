# ruff: noqa: E501 - lines of markup are as long as what they hold
"""The report's few lines of script. Without them everything is still there: in full, unsorted, in the system's theme."""

THEME = """
(function(){var root=document.documentElement,theme=null;
var asked=/theme=(dark|light)/.exec(location.hash);
try{theme=localStorage.getItem("ftlib-theme")}catch(e){}
if(asked)theme=asked[1];
if(theme==="dark"||theme==="light")root.dataset.theme=theme;
root.classList.add("scripted")})();
"""
"""In the head, so that the page never flashes in the other theme."""

PAGE = """
(function(){
var root=document.documentElement,button=document.querySelector(".theme");
function dark(){return root.dataset.theme?root.dataset.theme==="dark":matchMedia("(prefers-color-scheme:dark)").matches}
function name(){button.hidden=false;var next=dark()?"Light":"Dark";button.querySelector("span").textContent=next+" theme";
button.setAttribute("aria-label","Switch to the "+next.toLowerCase()+" theme")}
button.addEventListener("click",function(){root.dataset.theme=dark()?"light":"dark";
try{localStorage.setItem("ftlib-theme",root.dataset.theme)}catch(e){}name()});
matchMedia("(prefers-color-scheme:dark)").addEventListener("change",name);name();

function value(row,i){var cell=row.cells[i],given=cell.dataset.value;
return given===undefined?cell.textContent.trim().toLowerCase():given===""?null:parseFloat(given)}
function sort(table,i,head){
var body=table.tBodies[0],rows=Array.from(body.rows);
var up=head.getAttribute("aria-sort")?head.getAttribute("aria-sort")==="descending":head.dataset.first!=="descending";
rows.sort(function(a,b){var x=value(a,i),y=value(b,i);
if(x===null||y===null)return(x===null)-(y===null);
return(x<y?-1:x>y?1:0)*(up?1:-1)});
table.querySelectorAll("th[aria-sort]").forEach(function(h){h.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",up?"ascending":"descending");
rows.forEach(function(row){body.appendChild(row)});fold(table)}
document.querySelectorAll("table.sortable").forEach(function(table){
Array.from(table.tHead.rows[0].cells).forEach(function(head,i){
if(head.dataset.first===undefined)return;
var control=document.createElement("button");control.type="button";control.className="sort";
while(head.firstChild)control.appendChild(head.firstChild);
head.appendChild(control);control.addEventListener("click",function(){sort(table,i,head)})})});

function fold(table){var most=+table.dataset.fold;if(!most)return;
Array.from(table.tBodies[0].rows).forEach(function(row,i){row.hidden=i>=most&&!table.dataset.open})}
document.querySelectorAll("table[data-fold]").forEach(function(table){
var total=table.tBodies[0].rows.length,most=+table.dataset.fold;
if(total<=most+2){table.removeAttribute("data-fold");return}
fold(table);
var more=document.createElement("button");more.type="button";more.className="more";
function label(){more.textContent=table.dataset.open?"Show the first "+most:"Show all "+total;more.setAttribute("aria-expanded",!!table.dataset.open)}
more.addEventListener("click",function(){if(table.dataset.open)delete table.dataset.open;else table.dataset.open="1";fold(table);label()});
label();table.parentNode.after(more)});

var links={},rail=document.querySelector(".rail ol");
document.querySelectorAll(".rail a").forEach(function(a){links[a.hash.slice(1)]=a});
var sections=Object.keys(links).map(function(id){return document.getElementById(id)}).filter(Boolean),now=null;
function mark(){var here=sections[0];
sections.forEach(function(s){if(s.getBoundingClientRect().top<innerHeight*.3)here=s});
if(here===now||!here)return;
if(now)links[now.id].removeAttribute("aria-current");
now=here;var a=links[now.id];a.setAttribute("aria-current","true");
if(rail.scrollWidth>rail.clientWidth)rail.scrollTo({left:a.offsetLeft-rail.clientWidth/2+a.offsetWidth/2})}
addEventListener("scroll",mark,{passive:true});mark()
})();
"""
