//! The page in a browser: it builds its tables, sorts, filters, explains its numbers, works with the keyboard and on narrow
//! screens, loads nothing, and never executes names in the data.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::made;
use terrabench::home::Home;
use terrabench::record::Store;
use terrabench::report::{Choice, Style, write_all};

/// Returns the first browser on the path, or prints that there is none.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|p| p.is_file());
    if found.is_none() {
        eprintln!("skipped: no chromium on PATH");
    }
    found
}

/// Opens the page with `script` appended and returns the text that the script writes into `<pre id="seen">`.
fn seen(browser: &Path, page: &Path, script: &str, width: u32) -> String {
    let folder = page.parent().unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    let tested = folder.join("tested.html");
    let report = "const seen = []; const see = (name, value) => seen.push(`${name}: ${value}`);";
    let script = format!(
        "<script>{report}\ntry {{ {script} }} catch (error) {{ see('error', error.stack); }}\n\
         const pre = document.createElement('pre'); pre.id = 'seen'; pre.textContent = seen.join('\\n'); document.body.append(pre);</script>"
    );
    std::fs::write(&tested, html.replace("</body>", &format!("{script}</body>"))).unwrap();
    // A frame can be narrower than the browser's smallest window.
    let frame = folder.join("frame.html");
    std::fs::write(
        &frame,
        format!(
            "<iframe src='tested.html' width='{width}' height='900'></iframe><script>\
             addEventListener('load', () => {{ const inner = document.querySelector('iframe').contentDocument; \
             const pre = document.createElement('pre'); pre.id = 'outer'; \
             pre.textContent = inner.getElementById('seen').textContent; document.body.append(pre); }});</script>"
        ),
    )
    .unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--allow-file-access-from-files",
        ])
        .args(["--no-first-run", "--disable-extensions", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", frame.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, after) = dom.split_once("<pre id=\"outer\">").unwrap_or_else(|| {
        panic!("no answer from {}: {dom}\n{}", browser.display(), String::from_utf8_lossy(&output.stderr))
    });
    after.split("</pre>").next().unwrap().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Writes a page with names that contain scripts.
fn page(folder: &Path) -> PathBuf {
    let results = made::results(folder);
    let nasty = made::made("geobench", "m-eurosat", |record| {
        record.cell.model = "<script>window.ran = 1</script>\"><img src=x onerror='window.ran = 1'>".into();
        record.cell.backbone = "</script><script>window.ran = 1</script>".into();
        record.provenance.device = "<b>flex</b>".into();
    });
    let store = Store::open(results.join("geobench")).unwrap();
    store.put(&nasty).unwrap();
    let sheet = store.sheet(&nasty);
    std::fs::create_dir_all(sheet.parent().unwrap()).unwrap();
    std::fs::write(sheet, terrabench::canvas::encode_png(2, 2, &[7; 12]).unwrap()).unwrap();
    for task in ["m-eurosat", "m-bigearthnet"] {
        made::predict(
            &store,
            made::real()
                .iter()
                .find(|record| record.cell.task == task && record.cell.partition == "default")
                .unwrap(),
        );
    }
    write_all(&Home::find().unwrap(), &results, &results, &Choice::default(), Style::default()).unwrap();
    results.join("report.html")
}

#[test]
fn page_is_interactive_and_runs_no_injected_script() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let script = r#"
        const all = (selector, within = document) => [...within.querySelectorAll(selector)];
        const table = () => all("table")[0];
        const column = (i) => all("tbody tr", table()).map((row) => row.children[i].firstChild.textContent);
        const models = () => column(0);
        see("ready", document.documentElement.dataset.ready);
        see("tables", all(".table").length);
        see("ran", window.ran);
        see("nasty", all("tbody th").filter((th) => th.textContent.startsWith("<script>")).length > 0);
        see("images", all("img").length + " " + all("img").every((img) => img.src.startsWith("data:image/png;base64,")));
        see("first", models()[0]);
        const head = all("thead button", table())[2];
        head.click();
        see("highest", column(2)[0] + " " + head.parentElement.getAttribute("aria-sort"));
        head.click();
        see("lowest", column(2)[0] + " " + head.parentElement.getAttribute("aria-sort"));
        head.click();
        see("again", models()[0]);
        // A missing value comes last, either way.
        const sparse = all("thead button", table())[5];
        sparse.click(); see("last down", column(5).at(-1)); sparse.click(); see("last up", column(5).at(-1)); sparse.click();

        const set = (name, value) => {
            const field = document.getElementById("filter-" + name);
            field.value = value; field.dispatchEvent(new Event(name === "model" ? "input" : "change"));
        };
        const shown = () => all(".table").filter((one) => one.offsetParent !== null).length;
        set("suite", "landslide4sense"); see("one suite", shown()); set("suite", "");
        set("protocol", "linear-probe"); see("linear probe", shown());
        see("its rows", all("tr.ours th").every((th) => !th.textContent.includes("segmentation")));
        set("protocol", "");
        set("sensor", "s2-l2a"); see("sensor", all("thead th", table()).filter((th) => !th.hidden).length); set("sensor", "");
        set("model", "gali"); see("galileo", models().join()); set("model", "");

        const dialog = document.getElementById("provenance");
        const number = all("tr.ours", table()).find((row) => row.textContent.startsWith("TerraFM")).querySelector("td button");
        see("focusable", (number.focus(), document.activeElement === number));
        number.click();
        see("open", dialog.open);
        const text = dialog.textContent;
        for (const word of ["Weights", "Settings fingerprint", "Data fingerprint", "Selected", "Device", "Wall time", "Git revision", "Published"]) {
            see(word, text.includes(word));
        }
        see("hash", text.includes("5f3c9a1be20476d8a1c2") && text.includes("0123456789abcdef"));
        dialog.querySelector(".close").click();
        see("closed", !dialog.open);
        all("tbody td button", table())[0].click();
        see("source", dialog.textContent.includes("2506.06281"));
        see("copied", dialog.textContent.includes("copied from Galileo (arXiv 2502.09356), Table 13")); dialog.close();
        see("marks", all("sup", table()).map((sup) => sup.textContent).filter((mark, i, all) => all.indexOf(mark) === i).join());
        see("legend", all(".table p").filter((p) => p.textContent.startsWith("§ not known whether copied or rerun: 8 values")).length);
        see("rankings", all("table.plain").filter((one) => one.textContent.includes("Average rank")).length);
        const list = document.querySelector("details.checklist");
        list.open = true;
        see("checklist", all("tbody tr", list).slice(0, 6).map((row) => row.children[0].textContent).join(""));
        list.open = false;
        all("tr.ours").find((row) => row.textContent.startsWith("<script>")).querySelector("td button").click();
        see("escaped", dialog.textContent.includes("<b>flex</b>") && dialog.querySelector("b") === null); dialog.close();

        const box = all(".models input")[0];
        const owned = () => all("figure g[data-owner]").filter((g) => g.dataset.owner === "AnySat" && g.getBoundingClientRect().width > 0).length;
        const before = owned(); box.click();
        see("toggled", before > 0 && owned() === 0); box.click();
        see("back", owned() === before);
        see("demo", all("section").filter((section) => section.querySelector(".demo")).map((section) => section.dataset.section).join());
        see("demo rows", all("section")[2].querySelectorAll("tbody tr").length);
        see("width", innerWidth);
        see("fits", document.documentElement.scrollWidth <= innerWidth);
        see("ran at all", window.ran);
        see("loaded", performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length);
    "#;
    for width in [1280, 360] {
        let seen = seen(&browser, &page, script, width);
        let expected = format!(
            "ready: yes\ntables: 4\nran: undefined\nnasty: true\nimages: 1 true\nfirst: SatMAE\nhighest: 95.9 descending\n\
             lowest: 76.0 ascending\nagain: SatMAE\nlast down: -\nlast up: -\none suite: 1\nlinear probe: 1\nits rows: true\n\
             sensor: 4\ngalileo: Galileo\nfocusable: true\nopen: true\nWeights: true\nSettings fingerprint: true\n\
             Data fingerprint: true\nSelected: true\nDevice: true\nWall time: true\nGit revision: true\nPublished: true\n\
             hash: true\nclosed: true\nsource: true\ncopied: true\nmarks: †,§\nlegend: 1\nrankings: 3\nchecklist: 123456\nescaped: true\ntoggled: true\nback: true\ndemo: geobench-demo\n\
             demo rows: 1\nwidth: {width}\nfits: true\nran at all: undefined\nloaded: 0"
        );
        assert_eq!(seen, expected, "at {width} pixels");
    }
}

/// Checks every picture of the page with the browser's own font: texts stay inside the canvas and do not overlap.
#[test]
fn picture_texts_stay_inside_and_do_not_overlap() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = page(folder.path());
    let script = r#"
        const pictures = [...document.querySelectorAll("figure svg")];
        see("pictures", pictures.length);
        for (const svg of pictures) {
            const view = svg.viewBox.baseVal, title = svg.querySelector("title").textContent;
            const texts = [...svg.querySelectorAll("text")];
            // A browser's text box has the height of a line; the glyphs are smaller.
            const boxes = texts.map((text) => text.getBBox()).map((box) => ({
                left: box.x, right: box.x + box.width, top: box.y + 0.14 * box.height, bottom: box.y + 0.9 * box.height,
            }));
            boxes.forEach((box, i) => {
                if (box.left < 0 || box.top < 0 || box.right > view.width || box.bottom > view.height) {
                    see(`${title}, outside`, texts[i].textContent);
                }
                for (let j = i + 1; j < boxes.length; j += 1) {
                    const other = boxes[j];
                    if (box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom) {
                        see(`${title}, overlap`, `${texts[i].textContent} | ${texts[j].textContent}`);
                    }
                }
            });
        }
    "#;
    assert_eq!(seen(&browser, &page, script, 1280), "pictures: 15");
}
