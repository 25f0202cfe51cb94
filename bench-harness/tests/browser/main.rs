//! The report page in a real browser: what is drawn, and what mouse and keyboard do to it.
//!
//! Not part of a plain `cargo test`, which must not need a browser: `scripts/test browser` installs
//! one and runs this. With `RINGPOST_SCREENSHOTS=FOLDER` it leaves pictures to look at.

mod driver;
mod pages;

use driver::{Browser, DOWN, END, ENTER, RIGHT, SPACE};
use pages::{MANY, PAGES, TIMED, data};
use serde_json::{Value, json};

const WIDE: u32 = 1300;
const PHONE: u32 = 400;

/// Where the lines of the percentile plot go, a text a run; empty for those not there.
fn percentile_lines(browser: &Browser) -> Vec<String> {
    browser.texts(&format!(
        "[...Array({}).keys()].map((run) => document.querySelector(\
         `#percentiles g.run[data-run='${{run}}'] path.line`)?.getAttribute('d') ?? '')",
        MANY.len()
    ))
}

fn count(browser: &Browser, selector: &str) -> f64 {
    browser.number(&format!(
        "document.querySelectorAll({}).length",
        json!(selector)
    ))
}

#[test]
fn every_run_is_drawn_under_its_name() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    for (run, line) in percentile_lines(&browser).iter().enumerate() {
        let points = line.matches('L').count();
        assert_eq!(points > 20, TIMED.contains(&run), "run {run}: {line}");
    }
    assert_eq!(count(&browser, "#distribution path.line"), 4.0);
    assert_eq!(count(&browser, "#rate path.line"), 4.0);
    assert_eq!(count(&browser, "#bands figure"), 3.0);
    assert_eq!(count(&browser, "#cpu rect.bar:not(.pale)"), 4.0);
    let drawn = "[...document.querySelectorAll('svg *')].map((each) => each.outerHTML).join()";
    assert!(!browser.text(drawn).contains("NaN"));
    // Names are text, whatever is in them.
    let names = "[...document.querySelectorAll('.run-name')].map((name) => name.textContent)";
    assert_eq!(browser.texts(names), MANY);
    assert_eq!(count(&browser, "img"), 0.0);
    let notice = browser.text("document.querySelector('#percentiles .notice').textContent");
    assert!(
        notice.contains(MANY[3]) && notice.contains("delivery=forget"),
        "{notice}"
    );
    browser.screenshot("many-light");
    browser.is_quiet();
}

#[test]
fn a_run_is_toggled_by_mouse_and_by_keyboard() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let all = percentile_lines(&browser);
    browser.click("#legend [data-run='1']");
    let without = percentile_lines(&browser);
    assert_eq!(without[1], "", "still drawn");
    assert_ne!(
        without[0], all[0],
        "the longest run is gone, so the axes are others"
    );
    assert_eq!(count(&browser, "#distribution path.line"), 3.0);
    assert_eq!(count(&browser, "#bands figure"), 2.0);
    let pressed = |run: usize| {
        browser.text(&format!(
            "document.querySelector('#legend [data-run=\"{run}\"]').getAttribute('aria-pressed')"
        ))
    };
    assert_eq!((pressed(0), pressed(1)), ("true".into(), "false".into()));
    browser.click("#legend [data-run='1']");
    assert_eq!(percentile_lines(&browser), all);

    browser.tab_to("#legend [data-run='2']");
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(
        browser.text(outline),
        "solid",
        "the focus is not to be seen"
    );
    browser.press(SPACE);
    assert_eq!(percentile_lines(&browser)[2], "");
    assert_eq!(pressed(2), "false");
    browser.press(ENTER);
    assert_eq!(percentile_lines(&browser), all);

    browser.tab_to("[data-latency='service']");
    browser.press(SPACE);
    let service = percentile_lines(&browser);
    assert_ne!(service[0], all[0], "response and service are the same");
    browser.click("[data-latency='response']");
    assert_eq!(percentile_lines(&browser), all);

    browser.click("#show-none");
    assert_eq!(count(&browser, "g.run"), 0.0);
    let notice = browser.text("document.querySelector('#percentiles').textContent");
    assert!(notice.contains("No run is shown"), "{notice}");
    browser.click("#show-all");
    assert_eq!(percentile_lines(&browser), all);
    browser.is_quiet();
}

#[test]
fn figures_are_sorted_by_mouse_and_by_keyboard() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let rows = &data(&PAGES.many)["figures"];
    // The runs in the order of a figure.
    let by = |column: &str| -> Vec<usize> {
        let row = rows
            .as_array()
            .expect("rows")
            .iter()
            .find(|row| row["key"] == column);
        let values = &row.expect("the figure")["values"];
        let value = |run: &usize| values[*run].as_f64().expect("a number");
        let mut runs: Vec<usize> = (0..MANY.len()).collect();
        runs.sort_by(|one, other| value(one).total_cmp(&value(other)));
        runs
    };
    let reversed = |runs: Vec<usize>| runs.into_iter().rev().collect::<Vec<_>>();
    let (records, bytes) = (by("acked_records"), by("acked_bytes"));
    let head = |column: &str| {
        let heads =
            "[...document.querySelectorAll('.sortable thead th')].map((e) => e.textContent)";
        let place = browser.texts(heads).iter().position(|head| head == column);
        format!(
            ".sortable thead th:nth-child({}) button",
            place.expect("the column") + 1
        )
    };
    let order = || -> Vec<usize> {
        let names =
            "[...document.querySelectorAll('.sortable tbody th')].map((e) => e.textContent)";
        let place = |name: &String| MANY.iter().position(|known| known == name).expect("known");
        browser.texts(names).iter().map(place).collect()
    };
    let told = || {
        browser.text(
            "[...document.querySelectorAll('.sortable thead th')].map((head) => \
             `${head.textContent} ${head.getAttribute('aria-sort')}`)\
             .filter((told) => !told.endsWith('none')).join()",
        )
    };
    assert_eq!((order(), told()), (vec![0, 1, 2, 3], String::new()));
    browser.click(&head("acked_records"));
    assert_eq!(
        (order(), told()),
        (records.clone(), "acked_records ascending".into())
    );
    browser.click(&head("acked_records"));
    assert_eq!(
        (order(), told()),
        (reversed(records), "acked_records descending".into())
    );
    browser.tab_to(&head("acked_bytes"));
    browser.press(ENTER);
    assert_eq!(
        (order(), told()),
        (bytes.clone(), "acked_bytes ascending".into())
    );
    browser.press(SPACE);
    assert_eq!(
        (order(), told()),
        (reversed(bytes), "acked_bytes descending".into())
    );
    browser.is_quiet();
}

#[test]
fn the_cursor_reads_the_lines_by_mouse_and_by_keyboard() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let said = "document.querySelector('#percentiles .plot').getAttribute('aria-valuetext')";
    browser.tab_to("#percentiles .plot");
    browser.press(END);
    let last = browser.text(said);
    browser.press(driver::HOME);
    for _ in 0..6 {
        browser.press(RIGHT);
    }
    let median = browser.text(said);
    assert_ne!(median, last);
    assert!(median.starts_with("50\u{2009}%: "), "{median}");
    for run in TIMED {
        assert!(median.contains(MANY[run]), "{median}");
    }
    let readout = "document.querySelector('#percentiles .readout')";
    assert_eq!(
        browser.eval(&format!("{readout}.hidden")),
        Value::Bool(false)
    );
    browser.press(driver::TAB);
    assert_eq!(
        browser.eval(&format!("{readout}.hidden")),
        Value::Bool(true)
    );
    let middle = browser.eval(
        "(() => { const box = document.querySelector('#percentiles .plot')\
         .getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()",
    );
    let place = |at: usize| middle[at].as_f64().expect("a place");
    browser.point(place(0), place(1));
    assert_eq!(
        browser.eval(&format!("{readout}.hidden")),
        Value::Bool(false)
    );
    browser.screenshot("readout");
    browser.is_quiet();
}

#[test]
fn light_and_dark_are_two_looks_and_both_can_be_read() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let mut looks = Vec::new();
    for (prefers, chosen) in [
        ("light", "auto"),
        ("dark", "auto"),
        ("light", "dark"),
        ("dark", "light"),
    ] {
        browser.prefers(prefers);
        browser.click(&format!("button[data-theme='{chosen}']"));
        let look = look(&browser);
        let [card, ink, quiet] = [look[0], look[1], look[2]];
        for text in [ink, quiet] {
            assert!(
                contrast(text, card) >= 4.5,
                "{prefers} {chosen}: {text:?} on {card:?}"
            );
        }
        for ground in tints(&browser) {
            for text in [ink, quiet] {
                assert!(
                    contrast(text, ground) >= 4.5,
                    "{prefers} {chosen}: {text:?} on {ground:?}"
                );
            }
        }
        for line in &look[3..] {
            assert!(
                contrast(*line, card) >= 3.0,
                "{prefers} {chosen}: {line:?} on {card:?}"
            );
        }
        looks.push(look);
    }
    assert_eq!(looks[0], looks[3], "light, wished for or chosen");
    assert_eq!(looks[1], looks[2], "dark, wished for or chosen");
    for (light, dark) in looks[0].iter().zip(&looks[1]) {
        assert_ne!(light, dark);
    }
    browser.click("button[data-theme='dark']");
    browser.screenshot("many-dark");
    browser.is_quiet();
}

/// The computed colours of a card, its text, its lesser text, and all lines' colours, each in RGB.
fn look(browser: &Browser) -> Vec<[f64; 3]> {
    let colours = browser.texts(
        "(() => { const style = (selector) => getComputedStyle(document.querySelector(selector)); \
         const probe = document.createElement('i'); document.body.append(probe); \
         const named = [...Array(8).keys()].map((n) => { probe.style.color = `var(--c${n})`; \
         return getComputedStyle(probe).color; }); probe.remove(); \
         return [style('section').backgroundColor, style('section p').color, style('.quiet').color, \
         ...named]; })()",
    );
    colours.iter().map(|colour| rgb(colour)).collect()
}

/// What better and worse figures are written on, in RGB.
fn tints(browser: &Browser) -> Vec<[f64; 3]> {
    let colours = browser.texts(
        "['better', 'worse'].map((name) => { const probe = document.createElement('i'); \
         probe.style.color = `var(--${name})`; document.body.append(probe); \
         const found = getComputedStyle(probe).color; probe.remove(); return found; })",
    );
    colours.iter().map(|colour| rgb(colour)).collect()
}

fn rgb(colour: &str) -> [f64; 3] {
    let inner = colour.trim_start_matches("rgb(").trim_end_matches(')');
    let parts: Vec<f64> = inner
        .split(',')
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    <[f64; 3]>::try_from(parts).unwrap_or_else(|_| panic!("{colour}"))
}

/// [WCAG's contrast](https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio): 4.5 for text, 3 for lines.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let [red, green, blue] = colour.map(|channel| match channel / 255.0 {
            low if low <= 0.04045 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
    (one / other).max(other / one)
}

#[test]
fn a_telephone_shows_it_without_scrolling_sideways() {
    let mut browser = Browser::open(&PAGES.many, WIDE, "light");
    let wide = percentile_lines(&browser);
    browser.width(PHONE);
    assert_ne!(percentile_lines(&browser), wide, "drawn anew for the width");
    fits(&browser);
    browser.screenshot("many-400");
    browser.is_quiet();
    browser.prefers("dark");
    for (page, name) in [
        (&PAGES.one, "one"),
        (&PAGES.untimed, "untimed"),
        (&PAGES.sweep, "sweep"),
    ] {
        browser.go(page);
        fits(&browser);
        browser.screenshot(&format!("{name}-400-dark"));
        browser.is_quiet();
    }
}

fn fits(browser: &Browser) {
    let width = browser.number("document.documentElement.scrollWidth");
    let window = browser.number("window.innerWidth");
    assert_eq!(window, f64::from(PHONE));
    assert!(width <= window, "{width} px wide");
    let letters = "Math.min(...[...document.querySelectorAll('body *')].filter((each) => \
                   each.textContent.trim() && each.getClientRects().length)\
                   .map((each) => parseFloat(getComputedStyle(each).fontSize)))";
    assert!(browser.number(letters) >= 12.0, "letters too small to read");
}

#[test]
fn one_run_or_none_with_latencies_is_no_empty_page() {
    let mut browser = Browser::open(&PAGES.one, WIDE, "light");
    assert_eq!(count(&browser, "#percentiles path.line"), 1.0);
    let sweep = browser.text("document.querySelector('#sweep').textContent");
    assert!(sweep.contains("nothing varies"), "{sweep}");
    assert!(count(&browser, "#settings dt") > 10.0);
    browser.screenshot("one-light");
    browser.is_quiet();
    browser.go(&PAGES.untimed);
    let notice = browser.text("document.querySelector('#percentiles').textContent");
    assert!(notice.contains("delivery=forget"), "{notice}");
    assert_eq!(count(&browser, "#distribution path.line"), 1.0);
    browser.is_quiet();
}

#[test]
fn a_grid_of_two_settings_is_a_map_in_their_order() {
    let browser = Browser::open(&PAGES.sweep, WIDE, "dark");
    let cells = |selector: &str| {
        browser.texts(&format!(
            "[...document.querySelectorAll('.heat {selector}')].map((cell) => cell.textContent)"
        ))
    };
    let heads = [cells("thead th:not(.corner)"), cells("tbody th")].concat();
    for (small, large) in [("100B", "1KiB")] {
        let place = |wanted| heads.iter().position(|head| head == wanted);
        assert!(
            place(small).is_some() && place(small) < place(large),
            "{heads:?}"
        );
    }
    let rates = cells("td");
    assert_eq!(rates.len(), 4);
    assert!(rates.iter().all(|rate| rate.ends_with("/s")), "{rates:?}");
    assert!(count(&browser, ".heat td.best") >= 1.0);
    browser.eval(
        "(() => { const select = document.querySelector('#sweep select'); select.value = '3'; \
         select.dispatchEvent(new Event('change')); })()",
    );
    let times = cells("td");
    assert!(
        times
            .iter()
            .all(|time| time.ends_with('s') && !time.ends_with("/s")),
        "{times:?}"
    );
    browser.screenshot("sweep-dark");
    browser.is_quiet();
}

#[test]
fn the_map_shows_another_figure_by_keyboard() {
    let browser = Browser::open(&PAGES.sweep, WIDE, "light");
    let caption = || browser.text("document.querySelector('#sweep caption').textContent");
    assert!(caption().starts_with("records/s"), "{}", caption());
    browser.tab_to("#sweep select");
    for figure in ["CPU per record", "latency p50", "latency p99"] {
        browser.press(DOWN);
        assert!(
            caption().starts_with(figure),
            "{} is not {figure}: the keys do not reach the list",
            caption()
        );
    }
    browser.is_quiet();
}

/// A row of the page's data, a value a run.
fn values(rows: &Value, key: &str) -> Vec<Option<f64>> {
    let rows = rows.as_array().expect("rows").iter();
    let row = rows.filter(|row| row["key"] == key).last().expect(key);
    let values = row["values"].as_array().expect("values").iter();
    values.map(Value::as_f64).collect()
}

/// The ratios of the table of differences, a row a run; `NaN` where there is none.
fn ratios(browser: &Browser, column: &str) -> Vec<(String, f64)> {
    let heads = "[...document.querySelectorAll('#difference thead th')].map((head) => \
                 head.firstChild?.textContent ?? '')";
    let place = browser.texts(heads).iter().position(|head| head == column);
    let place = place.unwrap_or_else(|| panic!("no column {column}"));
    let cells = browser.texts(&format!(
        "[...document.querySelectorAll('#difference tbody tr')].map((row) => \
         `${{row.dataset.run}} ${{row.children[{place}].querySelector('.ratio')?.textContent}}`)"
    ));
    let parse = |cell: &String| {
        let (run, ratio) = cell.split_once(' ').expect("two words");
        let ratio = ratio.trim_start_matches("×\u{2009}");
        (run.to_owned(), ratio.parse().unwrap_or(f64::NAN))
    };
    cells.iter().map(parse).collect()
}

#[test]
fn runs_are_compared_with_one_that_mouse_and_keyboard_choose() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let figures = &data(&PAGES.many)["figures"];
    let as_expected = |reference: usize| {
        for (column, key, known) in [
            ("records/s", "records_per_s", 4),
            ("CPU per record", "cpu_us_per_record", 4),
            ("p50", "latency_us.response.p50", 3),
            ("p99", "latency_us.response.p99", 3),
            ("p99.9", "latency_us.response.p99_9", 3),
            ("slowest", "latency_us.response.max", 3),
        ] {
            let values = values(figures, key);
            let shown = ratios(&browser, column);
            assert_eq!(
                shown[0].0,
                reference.to_string(),
                "the reference comes first"
            );
            assert_eq!(shown.len(), MANY.len());
            let mut compared = 0;
            for (run, ratio) in shown {
                let value = values[run.parse::<usize>().expect("a number")];
                let (Some(value), Some(base)) = (value, values[reference]) else {
                    assert!(ratio.is_nan(), "{column} of {run}: {ratio}");
                    continue;
                };
                let expected = value / base;
                assert!(
                    (ratio / expected - 1.0).abs() < 0.06,
                    "{column} of {run}: {ratio} is not {expected}"
                );
                compared += 1;
            }
            assert_eq!(compared, known, "{column}");
        }
    };
    as_expected(0);
    browser.tab_to("#difference select");
    browser.press(DOWN);
    as_expected(1);
    browser.click("#difference option[value='2']");
    as_expected(2);
    let named = browser.text("document.querySelector('#difference div > p').textContent");
    assert!(named.contains(MANY[2]), "{named}");

    // What is taken out of the pictures is not compared either; the reference stays.
    for run in [2, 3] {
        browser.click(&format!("#legend [data-run='{run}']"));
    }
    let rows = ratios(&browser, "records/s");
    let rows: Vec<&str> = rows.iter().map(|(run, _)| run.as_str()).collect();
    assert_eq!(rows, ["2", "0", "1"]);
    browser.click("[data-latency='service']");
    let service = values(figures, "latency_us.service.p50");
    let (_, ratio) = ratios(&browser, "p50")[1].clone();
    let expected = service[0].expect("timed") / service[2].expect("timed");
    assert!((ratio / expected - 1.0).abs() < 0.06, "{ratio} {expected}");
    browser.is_quiet();
}

#[test]
fn what_differs_between_runs_is_said_and_tabled() {
    let browser = Browser::open(&PAGES.many, WIDE, "light");
    let data = data(&PAGES.many);
    for (section, rows) in [("settings", "settings"), ("environment", "environment")] {
        let known: Vec<Vec<&Value>> = data[rows]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["values"].as_array().expect("values").iter().collect())
            .filter(|values: &Vec<&Value>| values.iter().any(|value| !value.is_null()))
            .collect();
        let same = |values: &&Vec<&Value>| values.iter().all(|value| *value == values[0]);
        let (same, all) = (known.iter().filter(same).count(), known.len());
        let differ = all - same;
        assert!(differ > 0 && same > 0, "{section}: {differ} of {all}");
        let text = browser.text(&format!(
            "document.querySelector('#{section}')?.textContent ?? 'nothing there'"
        ));
        for said in [
            format!("{differ} of {all} differ."),
            format!("The same in all runs: {same}"),
        ] {
            assert!(text.contains(&said), "{said} is not in {text}");
        }
        let row = format!("#{section} table.compared tbody tr");
        assert_eq!(
            count(&browser, &row),
            f64::from(u32::try_from(differ).expect("few"))
        );
        assert_eq!(
            count(&browser, &format!("#{section} table.compared thead th")),
            5.0
        );
    }
    let row = browser.texts(
        "[...document.querySelectorAll('#settings tbody tr')].filter((row) => \
         row.firstChild.textContent === 'compression').flatMap((row) => [...row.children])\
         .map((cell) => (cell.querySelector('mark') ? '!' : '') + cell.textContent)",
    );
    assert_eq!(row, ["compression", "none", "!lz4", "none", "none"]);
    browser.is_quiet();
}

#[test]
fn twenty_runs_fit_a_telephone() {
    let browser = Browser::open(&PAGES.twenty, PHONE, "light");
    assert_eq!(count(&browser, "#legend button"), 20.0);
    assert_eq!(count(&browser, "#percentiles path.line"), 20.0);
    assert_eq!(count(&browser, "#difference tbody tr"), 20.0);
    fits(&browser);
    browser.screenshot("twenty-400");
    browser.prefers("dark");
    browser.width(WIDE);
    browser.screenshot("twenty-dark");
    browser.is_quiet();
}

#[test]
fn the_network_is_out_of_reach() {
    let browser = Browser::open(&PAGES.one, WIDE, "light");
    browser.is_quiet();
    // Also shows that the logs which `is_quiet` reads would tell.
    let reached =
        browser.eval("fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')");
    assert_eq!(reached, "refused");
    browser.eval("(() => { new Image().src = 'http://127.0.0.1:9/'; })()");
    browser.eval("(() => { document.body.append(Object.assign(document.createElement('script'), { text: 'window.ran = 1' })); })()");
    let said = browser.console().join("\n");
    for policy in ["connect-src", "img-src", "script-src"] {
        assert!(said.contains(policy), "{policy} is not in {said}");
    }
    assert_eq!(browser.eval("window.ran ?? 0"), 0);
}
