//! A partial read returns what a whole read returns.

use super::*;
use crate::endpoints::engine;
use crate::endpoints::spec::MetricSpec;
use crate::scheduling::Needs;

/// A body that counts the bytes read of it.
struct Counted<'a>(&'a [u8], usize);

impl PageBody for Counted<'_> {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let part = PageBody::part(&mut self.0, start, length);
        self.1 += part.len();
        part
    }
}

fn vllm() -> Extraction {
    Extraction::new(&engine::built_in()[0], &Needs::METRICS)
}

fn page(name: &str) -> String {
    let path = format!("../../tests/fixtures/vllm-0.32/metrics_{name}.txt");
    std::fs::read_to_string(path).unwrap()
}

/// Reads the pages one after the other. Returns the result of each and the number of bytes read.
fn read<'a>(pages: impl IntoIterator<Item = &'a str>) -> Vec<(Option<Page>, usize)> {
    let (extraction, mut reader) = (vllm(), PageReader::default());
    let read = pages.into_iter().map(|page| {
        let mut body = Counted(page.as_bytes(), 0);
        let said = reader.read(&extraction, &mut body);
        (said, body.1)
    });
    read.collect()
}

#[test]
fn a_page_is_read_whole_after_24_partial_reads() {
    let page = page("lora");
    let read = read(vec![page.as_str(); 60]);
    let whole = vllm().scan(page.as_bytes());
    assert!(whole.is_some() && read.iter().all(|(said, _)| *said == whole));
    let whole: Vec<usize> = (0..60).filter(|at| read[*at].1 >= page.len()).collect();
    assert_eq!(whole, [0, 25, 50]);
    assert!(read[1].1 < 6_500, "{}", read[1].1);
}

#[test]
fn changed_values_and_moved_lines_are_read() {
    let (busy, idle) = (page("busy"), page("idle"));
    let moved = busy.replacen("# HELP", "# HELP of a line that has grown by some bytes", 3);
    let fuller = busy.replace("tiny\"} 6.0\n", "tiny\"} 12345.0\n");
    assert_ne!(fuller, busy);
    let pages = [&busy, &moved, &busy, &fuller, &idle, &busy];
    for (at, (said, _)) in read(pages.map(String::as_str)).iter().enumerate() {
        assert_eq!(*said, vllm().scan(pages[at].as_bytes()), "{at}");
    }
}

/// Returns a page of the same size on which the lines with this name, and more lines, stand at the end.
fn rearranged(page: &str, name: &str, lines: &[String]) -> String {
    let (family, others): (Vec<&str>, Vec<&str>) = page
        .split_inclusive('\n')
        .partition(|line| line.contains(name));
    assert!(!family.is_empty());
    let mut changed = others.concat() + &family.concat() + &lines.concat();
    let surplus = changed.len() as isize - page.len() as isize;
    assert!(surplus >= 0);
    // Comments do not matter.
    let cut = changed.find("# HELP").unwrap();
    let end = cut + changed[cut..].find('\n').unwrap();
    changed.replace_range(end - (surplus as usize).min(end - cut - 1)..end, "");
    changed
}

#[test]
fn a_family_that_has_moved_is_found() {
    let page = page("busy");
    let moved = rearranged(&page, "vllm:kv_cache_usage_perc", &[]);
    let read = read([page.as_str(), &moved, &moved]);
    let whole = vllm().scan(moved.as_bytes());
    assert!(whole
        .as_ref()
        .is_some_and(|page| page.metrics.kv_usage.is_some()));
    assert_eq!([&read[1].0, &read[2].0], [&whole, &whole]);
}

#[test]
fn a_family_that_outgrew_its_part_is_read_to_its_end() {
    let page = page("lora");
    let series = |number: usize| {
        let names = format!("adapter-{number}-{}", "x".repeat(150));
        format!(
            "vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"{names}\",\
             waiting_lora_adapters=\"\"}} {}e+09\n",
            2 + number
        )
    };
    let mut lines: Vec<String> = page.split_inclusive('\n').map(str::to_owned).collect();
    let last = lines
        .iter()
        .rposition(|line| line.contains("lora_requests_info"))
        .unwrap();
    let more: Vec<String> = (0..4).map(series).collect();
    let room: usize = more.iter().map(String::len).sum();
    lines.splice(last + 1..last + 1, more);
    // As much is removed behind the family.
    let mut gone = 0;
    while gone < room {
        gone += lines.pop().unwrap().len();
    }
    let grown = lines.concat();
    let read = read([page.as_str(), &grown]);
    let whole = vllm().scan(grown.as_bytes());
    let newest = whole.as_ref().map(|page| page.metrics.lora.active.clone());
    assert!(newest.is_some_and(|active| active[0].starts_with("adapter-3")));
    assert_eq!(read[1].0, whole);
    assert!(grown.len().abs_diff(page.len()) <= MARGIN_BYTES / 2);
}

/// Changes, cuts, adds and removes random lines in and around the wanted families: a partial read still returns
/// what a whole read returns.
#[test]
fn random_changes_around_the_wanted_lines_are_read_as_on_a_whole_page() {
    let base = page("lora");
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut lines: Vec<&str> = base.split_inclusive('\n').collect();
        for _ in 0..rng.usize(1..4) {
            let wanted = [
                "num_requests",
                "kv_cache_usage",
                "lora_requests",
                "cache_config",
            ];
            let near: Vec<usize> = (0..lines.len())
                .filter(|at| wanted.iter().any(|name| lines[*at].contains(name)))
                .collect();
            let at = near[rng.usize(0..near.len())].saturating_sub(rng.usize(0..3));
            match rng.u32(0..4) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at]),
                2 => lines.insert(at, "other_metric{a=\"b\"} 1\n"),
                _ => lines[at] = lines[at].get(..lines[at].len() / 2).unwrap_or_default(),
            }
        }
        let changed = lines.concat();
        let read = read([base.as_str(), &changed, &changed, &base]);
        let whole = vllm().scan(changed.as_bytes());
        assert_eq!([&read[1].0, &read[2].0], [&whole, &whole], "seed {seed}");
    }
}

#[test]
fn a_page_that_has_its_families_without_values_is_rejected() {
    let page = page("busy");
    let needs = Needs {
        waiting: true,
        ..Needs::default()
    };
    let extraction = Extraction::new(&engine::built_in()[0], &needs);
    let families = [
        "num_requests_running{",
        "num_requests_waiting{",
        "kv_cache_usage_perc{",
    ];
    let lines = page.split_inclusive('\n').map(|line| {
        let value = families.iter().any(|name| line.contains(name));
        match line.rsplit_once(' ').filter(|_| value) {
            Some((series, _)) => format!("{series} NaN\n"),
            None => line.to_owned(),
        }
    });
    let changed: String = lines.collect();
    let mut reader = PageReader::default();
    assert!(reader.read(&extraction, &mut page.as_bytes()).is_some());
    assert_eq!(reader.read(&extraction, &mut changed.as_bytes()), None);
    assert_eq!(extraction.scan(changed.as_bytes()), None);
}

#[test]
fn a_page_that_was_cut_behind_the_wanted_families_is_rejected() {
    let page = page("busy");
    let whole = rearranged(
        &page,
        "vllm:kv_cache_usage_perc",
        &["one 1\ntwo 2\n".to_owned()],
    );
    let cut = whole.trim_end();
    let read = read([whole.as_str(), &whole, cut]);
    assert!(read[1].0.is_some() && read[1].1 < 6_000);
    assert_eq!(read[2].0, None);
}

#[test]
fn another_engines_families_are_searched_on_the_whole_page() {
    let (page, mut reader) = (page("busy"), PageReader::default());
    let mut engine = engine::built_in()[0].clone();
    engine.name = "other".to_owned();
    // This family stands elsewhere on the page.
    engine.lora = Some(MetricSpec::family("python_info"));
    let other = Extraction::new(&engine, &Needs::METRICS);
    let mut body = page.as_bytes();
    let lora = reader.read(&vllm(), &mut body).map(|page| page.lora_seen);
    let others = reader.read(&other, &mut body).map(|page| page.lora_seen);
    assert_eq!((lora, others), (Some(false), Some(true)));
}

#[test]
fn the_page_after_a_rejected_one_is_read_whole() {
    let page = page("busy");
    let read = read([page.as_str(), "", "nothing 1\n", &page, &page]);
    assert_eq!((&read[1].0, &read[2].0), (&None, &None));
    assert_eq!(read[3].1, page.len());
    assert!(read[4].1 < 6_000);
}

/// Returns a busy page with this many engines and their values.
fn engines(count: usize, value: impl Fn(usize) -> usize) -> String {
    let page = page("busy");
    let lines = page.split_inclusive('\n').map(|line| {
        let wanted = ["num_requests_running{", "num_requests_waiting{"];
        let (series, _) = line.rsplit_once(' ').unwrap_or_default();
        if !wanted.iter().any(|name| line.contains(name)) {
            return line.to_owned();
        }
        let each = (0..count).map(|engine| {
            let label = format!("engine=\"{engine}\"");
            let series = series.replace("engine=\"0\"", &label);
            format!("{series} {}.0\n", value(engine))
        });
        each.collect()
    });
    lines.collect()
}

fn loads(page: Option<&Page>) -> (Option<f64>, Option<f64>) {
    let metrics = page.map(|page| &page.metrics);
    (
        metrics.and_then(|metrics| metrics.waiting),
        metrics.and_then(|metrics| metrics.running),
    )
}

#[test]
fn engines_that_appear_and_vanish_are_read_immediately() {
    let counts = [2, 3, 2, 1, 2, 2, 0, 2];
    let pages: Vec<String> = counts
        .iter()
        .map(|count| engines(*count, |it| it + 4))
        .collect();
    let read = read(pages.iter().map(String::as_str));
    for ((count, page), (said, _)) in counts.iter().zip(&pages).zip(&read) {
        let sum = (*count > 0).then(|| (0..*count).map(|it| it + 4).sum::<usize>() as f64);
        assert_eq!(loads(said.as_ref()), (sum, sum), "{count}");
        assert_eq!(*said, vllm().scan(page.as_bytes()));
    }
    // Without a change, parts were enough.
    assert!(read[5].1 < 8_000, "{}", read[5].1);
}

#[test]
fn an_engine_that_has_moved_to_another_place_on_the_page_is_found() {
    let page = engines(3, |it| it + 4);
    for name in ["num_requests_waiting{", "num_requests_running{"] {
        for engine in 0..3 {
            let label = format!("engine=\"{engine}\"");
            let is = |line: &str| line.contains(name) && line.contains(&label);
            let (moved, mut rest): (Vec<&str>, Vec<&str>) =
                page.split_inclusive('\n').partition(|line| is(line));
            assert_eq!(moved.len(), 1);
            for place in [0, rest.len() / 2, rest.len()] {
                rest.insert(place, moved[0]);
                let changed = rest.concat();
                rest.remove(place);
                let read = read([page.as_str(), &changed, &changed, &page]);
                let whole = vllm().scan(page.as_bytes());
                assert!(
                    read.iter().all(|(said, _)| *said == whole),
                    "{name} {engine} {place}"
                );
            }
        }
    }
}

/// The family has no type line, so only its first sample shows where it begins. The second page has one engine
/// more, and as many as before within the part that is read.
#[test]
fn an_engine_above_the_known_ones_of_a_family_without_a_type_is_read() {
    let series = |engine: usize, padding: usize| {
        let label = "x".repeat(padding);
        format!("vllm:num_requests_waiting{{engine=\"{engine}\",model_name=\"{label}\"}} 1.0\n")
    };
    let family = |count, padding| (0..count).map(|it| series(it, padding)).collect::<String>();
    let filler = |bytes: usize| format!("{}\n", "filler 1\n".repeat(bytes).split_at(bytes - 1).0);
    let size = 20_000;
    let page = |begin: usize, family: String| {
        let end = begin + family.len();
        filler(begin) + &family + &filler(size - end)
    };
    let (few, more) = (family(4, 1), family(5, 220));
    let begin = 9_000;
    let above = series(0, 220).len();
    let (before, after) = (
        page(begin, few),
        page(begin - MARGIN_BYTES - above / 2, more),
    );
    let read = read([before.as_str(), &before, &after]);
    assert!(read[1].1 < 3_000, "{}", read[1].1);
    let waiting = |at: usize| loads(read[at].0.as_ref()).0;
    assert_eq!(
        [waiting(0), waiting(1), waiting(2)],
        [4.0, 4.0, 5.0].map(Some)
    );
}
