//! The page and the plot that the command writes.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Load, MAX_IDLETIME, MAX_PODS, Record, Rule, SLOTS, loads, play};

/// `docs/scaling.md`.
#[must_use]
pub fn page() -> String {
    let mut page = format!(
        "# Scaling, compared\n\n\
         Waypost decides on every change; the rules before it on a tick. Here both meet the same loads: the real engine of \
         the endpoint (`agent/engine`, as it runs in production), and the rules of Parsl's `simple` (every 5 s; Globus \
         Compute's default) and `htex_auto_scale` (every 5 s), and of the old chart's `KubeSimpleStrategy` (every second). \
         Nothing is run: it is a simulation, made and checked by\n\n\
         ```\ncargo run --release -p waypost-simulator --bin compare-scaling\n```\n\n\
         which prints this page and writes it and the plot; the same seeds always give the same. A test compares.\n\n\
         All have pods of {SLOTS} slots, at most {MAX_PODS}, none at the beginning and none kept, a parallelism of 1, and \
         pods that say hello 2 to 5 s after they were asked for and are gone 1 s after they end. A pod may be idle for {} s, \
         where nothing else is said. The rules that act on a tick are given our way to choose a pod for a task (the fullest \
         that has a free slot), which suits them: Parsl's own chooses at random and leaves no pod idle for long.\n\n",
        MAX_IDLETIME.as_secs()
    );
    for load in loads() {
        let _ = writeln!(page, "- **{}**: {}.", load.name, load.what);
    }
    page.push_str(
        "\n![Pods over time, under each rule](scaling.svg)\n\n\
         | load | rule | pod-seconds | wait, median | wait, 95 % | wait, most | starts | flaps | unused | within 1 min | within 5 s |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for load in loads() {
        for rule in Rule::ALL {
            row(&mut page, &load, rule, &play(&load, rule));
        }
    }
    page.push_str(
        "\nPod-seconds count from the moment a pod is asked for to the moment it is gone; every pod that is started is ended, \
         so stops are as many as starts.\n\n\
         ## Flapping\n\n\
         A pod may be idle for so long (`max_idletime`), and no rule knows what comes after. So a stop is a **flap** if the \
         tasks ask for as many pods again sooner than `max_idletime` after they last did: the pod was ended too early, by the \
         user's own measure. (120 s is that measure for all rows, so that the row with a quarter of the idle time shows that \
         flaps are found where there are any.) A pod that is **unused** came and went without having run a task. The last two \
         columns are starts within a minute and within 5 s of some stop, whatever the gap was; 5 s is what a pod takes at most \
         to come up.\n\n\
         Our rules flap nowhere, and on each load they use fewer pod-seconds than every rule before them: two tests hold them to that. \
         Two things see to it:\n\n\
         - A pod is ended only after it had nothing to do for `max_idletime`, and tasks go to the fullest pod that has a free \
           slot, so that the pods which are not asked for are the ones that stay idle.\n\
         - A pod is not asked for if, at the pace at which tasks end, the slots in hand take the waiting tasks before it could \
           come up. How long pods take to come up is learned; nothing is put off for longer than that, nor for more than 5 s, nor \
           while no task ends, and the first pod never is.\n\n\
         What is to be seen beside that:\n\n\
         - Bursts: one of them comes within seconds after the idle time was over, so that the pods which were just ended are \
           started again. That is no flap, for nothing had asked for them for longer than they may be idle; it hits us and \
           `KubeSimpleStrategy`, and `simple` and `htex_auto_scale` are spared by their tick.\n\
         - Steady: as many tasks come in each minute, and still chance asks for one or two pods more now and then.\n\
         - Sawtooth: pods left from one tooth are ended while the next one rises, and are asked for again at its top, minutes \
           after they last were. `htex_auto_scale` does the same; `simple` and `KubeSimpleStrategy` keep all and use a third \
           more. Pods that are put off cost the rise up to some seconds of waiting. The unused ones came up when the tooth was over.\n\
         - Straggler: `simple` and `KubeSimpleStrategy` end nothing as long as there is one task, which costs them eight times \
           the pods. We start ten at once until one has come up, which costs the burst a second.\n\
         - A quarter of the idle time takes half of the pods off the bursts, and flaps.\n",
    );
    page
}

fn row(page: &mut String, load: &Load, rule: Rule, record: &Record) {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let _ = writeln!(
        page,
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        load.name,
        rule.name(),
        record.pod_time.as_secs(),
        seconds(record.wait(50)),
        seconds(record.wait(95)),
        seconds(record.wait(100)),
        record.starts.len(),
        record.flaps(MAX_IDLETIME),
        record.unused,
        record.starts_within(Duration::from_secs(60)),
        record.starts_within(Duration::from_secs(5)),
    );
}

const WIDTH: f64 = 900.0;
const PANEL: f64 = 170.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 60.0;

const fn colour(rule: Rule) -> &'static str {
    match rule {
        Rule::Waypost => "#0b6e4f",
        Rule::WaypostHasty => "#6bbf59",
        Rule::Simple => "#c1121f",
        Rule::HtexAutoScale => "#f4a261",
        Rule::KubeSimple => "#5a189a",
    }
}

/// `docs/scaling.svg`: a panel for each load, a line for each rule, and what the tasks ask for in grey.
#[must_use]
pub fn plot() -> String {
    let loads = loads();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let height = TOP + PANEL * loads.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">Pods over time (grey: what the tasks ask for)</text>\n"
    );
    for (index, rule) in (0_u32..).zip(Rule::ALL) {
        let x = LEFT + f64::from(index) * 165.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"38\" x2=\"{}\" y2=\"38\" stroke=\"{}\" stroke-width=\"3\"/><text x=\"{}\" y=\"42\">{}</text>",
            x + 20.0,
            colour(rule),
            x + 25.0,
            rule.name().replace('`', "")
        );
    }
    for (index, load) in (0_u32..).zip(&loads) {
        panel(&mut svg, load, TOP + f64::from(index) * PANEL);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, load: &Load, top: f64) {
    let records: Vec<(Rule, Record)> = Rule::ALL.map(|rule| (rule, play(load, rule))).into();
    let end = records
        .iter()
        .filter_map(|(_, record)| record.samples.last())
        .map(|sample| sample.at.as_secs_f64())
        .fold(1.0, f64::max);
    let (height, width) = (PANEL - 45.0, WIDTH - LEFT - 20.0);
    let x = |at: Duration| LEFT + at.as_secs_f64() / end * width;
    let y = |pods: f64| top + 15.0 + height - pods / f64::from(MAX_PODS) * height;
    let (bottom, right) = (y(0.0), LEFT + width);
    if let Some((_, record)) = records.first() {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand tasks")]
        let wanted = |tasks: usize| (tasks as f64 / f64::from(SLOTS)).ceil().min(f64::from(MAX_PODS));
        let points = record
            .samples
            .iter()
            .map(|sample| (x(sample.at), y(wanted(sample.tasks))));
        let _ = writeln!(
            svg,
            "<path d=\"{} V{bottom:.1} H{LEFT}\" fill=\"#ddd\"/>",
            steps(points, bottom)
        );
    }
    for (rule, record) in &records {
        #[expect(clippy::cast_precision_loss, reason = "a few pods")]
        let points = record
            .samples
            .iter()
            .map(|sample| (x(sample.at), y(sample.pods as f64)));
        let _ = writeln!(
            svg,
            "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.3\"/>",
            steps(points, bottom),
            colour(*rule)
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {:.1} V{bottom:.1} H{right}\" fill=\"none\" stroke=\"black\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{MAX_PODS}</text>\
         <text x=\"{}\" y=\"{bottom:.1}\" text-anchor=\"end\">0</text>\
         <text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\
         <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} min</text>",
        y(f64::from(MAX_PODS)),
        LEFT - 6.0,
        y(f64::from(MAX_PODS)) + 4.0,
        LEFT - 6.0,
        bottom + 15.0,
        load.name,
        bottom + 15.0,
        end / 60.0
    );
}

/// A line that stays as it is until the next point; what is closer than a pixel is left out.
fn steps(points: impl Iterator<Item = (f64, f64)>, bottom: f64) -> String {
    let mut path = format!("M{LEFT} {bottom:.1}");
    let (mut last, mut pending) = ((LEFT, bottom), None);
    for (x, y) in points {
        if x - last.0 < 0.8 {
            pending = Some(y);
            continue;
        }
        if let Some(y) = pending.take()
            && (y - last.1).abs() > 0.05
        {
            let _ = write!(path, "V{y:.1}");
            last.1 = y;
        }
        let _ = write!(path, "H{x:.1}");
        last.0 = x;
        if (y - last.1).abs() > 0.05 {
            let _ = write!(path, "V{y:.1}");
            last.1 = y;
        }
    }
    if let Some(y) = pending {
        let _ = write!(path, "V{y:.1}");
    }
    path
}
