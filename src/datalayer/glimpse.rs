//! Reading a metrics page where what is wanted stood last, instead of all of it.
//!
//! Of vLLM's 50 KB some 3 are read; copying the others into the VM and passing over them is nine tenths of
//! what a page costs there. Each page is read whole first, and each 25th time again, so that a family
//! that appears elsewhere is found. Between those, a page that has not in these places what it had there
//! is read whole, too; what lies elsewhere on it, a cut end included, is not looked at.

use super::scan::{Extraction, Family, Found, Page};

/// Read before and behind a family's lines, in bytes: as far as they move when counters elsewhere on
/// the page gain a digit or a series begins, and room for the line that shows where a family ends.
const SLACK: usize = 512;

/// Places that are less apart are read in one go: asking Envoy for a part costs about as much as reading
/// so many bytes.
const NEAR: usize = 1_024;

/// Pages read in part before one is read whole again: after five seconds at the default 200 ms.
const GLIMPSES: u8 = 24;

/// An answer's body, of which parts can be had.
pub trait Body {
    /// Its bytes.
    fn size(&self) -> usize;
    /// So many of them from there on, or as many as there are.
    fn part(&mut self, start: usize, length: usize) -> Vec<u8>;
}

impl Body for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
        let end = start.saturating_add(length).min(self.len());
        self.get(start..end).unwrap_or_default().to_vec()
    }
}

/// Where on a page what is wanted stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    families: Vec<Family>,
    /// What to read: from where, and up to where.
    stretches: Vec<(usize, usize)>,
    size: usize,
}

impl Layout {
    /// That of a page of so many bytes; none where something on it cannot be read, or where reading it
    /// in parts would spare less than half.
    pub fn of(found: &[Found<'_>], size: usize) -> Option<Self> {
        let families: Vec<Family> = found.iter().map(|found| found.family).collect();
        let there = found.iter().filter(|found| found.family != Family::Absent);
        let mut spans: Vec<(usize, usize)> = there.map(|found| found.span).collect();
        spans.sort_unstable();
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (start, end) in spans {
            let (start, end) = (start.saturating_sub(SLACK), (end + SLACK).min(size));
            match stretches.last_mut() {
                Some(last) if start <= last.1 + NEAR => last.1 = last.1.max(end),
                _ => stretches.push((start, end)),
            }
        }
        let sum: usize = stretches.iter().map(|(start, end)| end - start).sum();
        let plain = !families.contains(&Family::Refused);
        (plain && sum <= size / 2).then_some(Self {
            families,
            stretches,
            size,
        })
    }

    /// Whether just these families were found.
    pub fn is_of(&self, found: &[Found<'_>]) -> bool {
        let families = found.iter().map(|found| found.family);
        families.eq(self.families.iter().copied())
    }

    /// Whether a page of so many bytes may be laid out alike: the lines move by what the size changes.
    fn suits(&self, size: usize) -> bool {
        self.size.abs_diff(size) <= SLACK / 2
    }
}

/// What is known of one endpoint's page.
#[derive(Debug, Default)]
pub struct Known {
    layout: Option<Layout>,
    /// By which engine's names it was read.
    engine: String,
    /// Pages to be read in part.
    left: u8,
}

impl Known {
    /// Reads a page; `None` where it is none.
    pub fn read(&mut self, extraction: &Extraction, body: &mut dyn Body) -> Option<Page> {
        if let Some(page) = self.glimpse(extraction, body) {
            self.left -= 1;
            return Some(page);
        }
        *self = Self::default();
        let whole = body.part(0, body.size());
        let (page, layout) = extraction.survey(&whole)?;
        self.layout = layout;
        self.engine.clone_from(&extraction.engine);
        self.left = GLIMPSES;
        Some(page)
    }

    fn glimpse(&self, extraction: &Extraction, body: &mut dyn Body) -> Option<Page> {
        let size = body.size();
        let layout = self.layout.as_ref();
        let same = self.left > 0 && self.engine == extraction.engine;
        let layout = layout.filter(|layout| same && layout.suits(size))?;
        let stretches = layout.stretches.iter();
        let parts = stretches.map(|(start, end)| (*start, body.part(*start, end - start)));
        let parts: Vec<(usize, Vec<u8>)> = parts.collect();
        extraction.glimpse(layout, &parts, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalayer::engine;
    use crate::datalayer::spec::MetricSpec;
    use crate::scheduling::Needs;

    /// A body that counts what was read of it.
    struct Counted<'a>(&'a [u8], usize);

    impl Body for Counted<'_> {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn part(&mut self, start: usize, length: usize) -> Vec<u8> {
            let part = Body::part(&mut self.0, start, length);
            self.1 += part.len();
            part
        }
    }

    fn vllm() -> Extraction {
        Extraction::new(&engine::built_in()[0], &Needs::METRICS)
    }

    fn page(name: &str) -> String {
        let path = format!("tests/fixtures/vllm-0.32/metrics_{name}.txt");
        std::fs::read_to_string(path).unwrap()
    }

    /// Reads the pages one after the other; what each said, and how many bytes were read of it.
    fn read<'a>(pages: impl IntoIterator<Item = &'a str>) -> Vec<(Option<Page>, usize)> {
        let (extraction, mut known) = (vllm(), Known::default());
        let read = pages.into_iter().map(|page| {
            let mut body = Counted(page.as_bytes(), 0);
            let said = known.read(&extraction, &mut body);
            (said, body.1)
        });
        read.collect()
    }

    #[test]
    fn a_page_is_read_whole_now_and_then_and_where_it_matters_in_between() {
        let page = page("lora");
        let read = read(vec![page.as_str(); 60]);
        let whole = vllm().scan(page.as_bytes());
        assert!(whole.is_some() && read.iter().all(|(said, _)| *said == whole));
        let whole: Vec<usize> = (0..60).filter(|at| read[*at].1 >= page.len()).collect();
        assert_eq!(whole, [0, 25, 50]);
        assert!(read[1].1 < 6_000, "{}", read[1].1);
    }

    #[test]
    fn values_that_change_and_lines_that_move_are_seen() {
        let (busy, idle) = (page("busy"), page("idle"));
        let moved = busy.replacen("# HELP", "# HELP of a line that has grown by some bytes", 3);
        let fuller = busy.replace("tiny\"} 6.0\n", "tiny\"} 12345.0\n");
        assert_ne!(fuller, busy);
        let pages = [&busy, &moved, &busy, &fuller, &idle, &busy];
        for (at, (said, _)) in read(pages.map(String::as_str)).iter().enumerate() {
            assert_eq!(*said, vllm().scan(pages[at].as_bytes()), "{at}");
        }
    }

    /// A page of the same size, on which these lines stand elsewhere.
    fn rearranged(page: &str, name: &str, lines: &[String]) -> String {
        let (family, others): (Vec<&str>, Vec<&str>) = page
            .split_inclusive('\n')
            .partition(|line| line.contains(name));
        assert!(!family.is_empty());
        let mut changed = others.concat() + &family.concat() + &lines.concat();
        let surplus = changed.len() as isize - page.len() as isize;
        assert!(surplus >= 0);
        // A comment more or less is no difference.
        let cut = changed.find("# HELP").unwrap();
        let end = cut + changed[cut..].find('\n').unwrap();
        changed.replace_range(end - (surplus as usize).min(end - cut - 1)..end, "");
        changed
    }

    #[test]
    fn a_family_that_has_moved_is_found_where_it_is() {
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
    fn a_family_that_has_grown_out_of_its_place_is_read_to_its_end() {
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
        // As much is taken away behind it.
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
        assert!(grown.len().abs_diff(page.len()) <= SLACK / 2);
    }

    /// Whatever is changed where what is wanted stands, and wherever lines are cut, added or taken away
    /// around it: what is said is what the whole page says.
    #[test]
    fn what_changes_around_the_wanted_lines_changes_nothing() {
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
    fn a_page_that_still_has_its_families_and_no_value_is_none() {
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
        let mut known = Known::default();
        assert!(known.read(&extraction, &mut page.as_bytes()).is_some());
        assert_eq!(known.read(&extraction, &mut changed.as_bytes()), None);
        assert_eq!(extraction.scan(changed.as_bytes()), None);
    }

    #[test]
    fn a_page_that_was_cut_behind_what_is_wanted_is_none() {
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
    fn another_engines_names_are_looked_for_on_the_whole_page() {
        let (page, mut known) = (page("busy"), Known::default());
        let mut engine = engine::built_in()[0].clone();
        engine.name = "other".to_owned();
        // Elsewhere on the page, and there is no such family of vLLM's.
        engine.lora = Some(MetricSpec::family("python_info"));
        let other = Extraction::new(&engine, &Needs::METRICS);
        let mut body = page.as_bytes();
        let lora = known.read(&vllm(), &mut body).map(|page| page.lora_seen);
        let others = known.read(&other, &mut body).map(|page| page.lora_seen);
        assert_eq!((lora, others), (Some(false), Some(true)));
    }

    #[test]
    fn a_page_that_says_nothing_is_none_and_read_whole_the_next_time() {
        let page = page("busy");
        let read = read([page.as_str(), "", "nothing 1\n", &page, &page]);
        assert_eq!((&read[1].0, &read[2].0), (&None, &None));
        assert_eq!(read[3].1, page.len());
        assert!(read[4].1 < 6_000);
    }
}
