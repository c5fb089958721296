//! Sets of candidates that filters leave: kept while nothing they depend on changes.

use super::*;
use crate::scheduling::{Filter, Metrics, Pool, PrefixMatch, RequestView};
use crate::testing::{pool, TestFilter};

/// Counts how often it runs.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicUsize, Basis);

impl Filter for Counting {
    fn filter(&self, _: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        candidates.retain(|slot| slot.0 != 0);
    }

    fn basis(&self) -> Basis {
        self.1
    }
}

fn idle(endpoints: usize) -> Pool {
    pool((0..endpoints).map(|_| Metrics::default()))
}

fn named(filter: Arc<dyn Filter>) -> Arc<[NamedFilter]> {
    let name = "filter".to_owned();
    [NamedFilter { name, filter }].into()
}

fn slots(
    candidates: &mut Candidates,
    filters: &Arc<[NamedFilter]>,
    pool: &Pool,
    model: &str,
) -> Vec<u32> {
    let request = RequestView {
        model,
        ..RequestView::default()
    };
    let found = candidates.of(filters, &Cycle::new(pool, request), None);
    found.unwrap().slots.iter().map(|slot| slot.0).collect()
}

#[test]
fn a_filter_of_the_pool_runs_again_only_after_the_pool_has_changed() {
    for (basis, runs) in [(Basis::Pool, 2), (Basis::Model, 4), (Basis::Request, 6)] {
        let filter = Arc::new(Counting(0.into(), basis));
        let filters = named(filter.clone());
        let (mut candidates, mut pool) = (Candidates::default(), idle(3));
        for _ in 0..2 {
            for model in ["a", "b", "a"] {
                assert_eq!(slots(&mut candidates, &filters, &pool, model), [1, 2]);
            }
            pool.get_mut(Slot(1)).unwrap().metrics.waiting = Some(1.0);
        }
        let ran = filter.0.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ran, runs, "{basis:?}");
    }
}

/// Whichever filter empties the list: that no endpoint has the labels is another error than that those which have
/// them are full, or cannot serve this prompt.
#[test]
fn only_labels_that_no_endpoint_has_are_matched_by_none() {
    let role = |role: &str| ("llm-d.ai/role".to_owned(), role.to_owned());
    let error = |filters: [&str; 2], first: &str| {
        let [one, other] = filters.map(|filter| format!("{{pluginRef: {filter}}}"));
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: decode-filter}}\n\
             - {{type: concurrency-detector, parameters: {{maxConcurrency: 1, failOpen: false}}}}\n\
             - {{type: context-length-aware, parameters: {{enableFiltering: true}}}}\n\
             schedulingProfiles: [{{name: default, plugins: [{one}, {other}]}}]\n"
        );
        let plan = crate::config::load(&text).unwrap().plan;
        let mut pool = idle(2);
        let range = (
            "llm-d.ai/context-length-range".to_owned(),
            "0-10".to_owned(),
        );
        pool.get_mut(Slot(0)).unwrap().labels = vec![range, role(first)];
        pool.get_mut(Slot(1)).unwrap().labels = vec![role("prefill")];
        let full = crate::scheduling::InFlight {
            requests: 1,
            ..Default::default()
        };
        pool.set_load(Slot(0), full);
        let mut request = RequestView::default();
        request.cost.prompt = 100.0;
        let mut scratch = crate::scheduling::Scratch::new(fastrand::Rng::with_seed(1));
        let found = plan
            .scheduler
            .schedule(&Cycle::new(&pool, request), 0, &mut scratch, None);
        found.unwrap_err()
    };
    for other in ["concurrency-detector", "context-length-aware"] {
        for filters in [["decode-filter", other], [other, "decode-filter"]] {
            assert_eq!(
                error(filters, "decode"),
                ScheduleError::AllFiltered,
                "{filters:?}"
            );
            assert_eq!(
                error(filters, "encode"),
                ScheduleError::NoneMatches,
                "{filters:?}"
            );
        }
    }
}

#[test]
fn sets_of_more_models_than_are_kept_are_still_right() {
    let filters = named(Arc::new(TestFilter::Adapter));
    let mut pool = idle(3);
    pool.get_mut(Slot(1)).unwrap().metrics.lora.waiting = vec!["5".to_owned()];
    let mut candidates = Candidates::default();
    for round in 0..60 {
        let model = (round * 7 % 20).to_string();
        let expected: &[u32] = if model == "5" { &[0, 2] } else { &[0, 1, 2] };
        assert_eq!(slots(&mut candidates, &filters, &pool, &model), expected);
    }
    assert_eq!(candidates.sets.len(), MAX_SETS);
}

#[test]
fn a_filter_that_looks_at_the_length_keeps_the_choice_open_while_it_can_change() {
    let filters = named(Arc::new(TestFilter::Length));
    let pool = idle(4);
    let same = |least: f64, most: f64| {
        let prefix = [least, most].map(|total| {
            [PrefixMatch {
                total,
                ..PrefixMatch::default()
            }]
        });
        let cycle = |prefix| {
            Cycle::new(
                &pool,
                RequestView {
                    prefix,
                    ..RequestView::default()
                },
            )
        };
        same_survivors(&filters, &cycle(&prefix[0]), &cycle(&prefix[1]))
    };
    assert!(same(1.0, 1.5));
    assert!(!same(1.0, 2.0));
    assert!(same(9.0, f64::INFINITY));
}

/// Keeps the endpoints that are listed.
#[derive(Debug)]
struct Listed(&'static [u32]);

impl Filter for Listed {
    fn filter(&self, _: &Cycle<'_>, candidates: &mut Vec<Slot>) {
        candidates.retain(|slot| self.0.contains(&slot.0));
    }
}

/// Scores that are kept for a set are used for it alone.
#[test]
fn candidates_that_hold_for_one_request_are_a_known_set_only_where_they_are_all() {
    let mut pool = idle(4);
    for slot in [2, 3] {
        pool.get_mut(Slot(slot)).unwrap().ejected = true;
    }
    let mut candidates = Candidates::default();
    let mut set = |filters: &Arc<[NamedFilter]>| {
        let cycle = Cycle::new(&pool, RequestView::default());
        let found = candidates.of(filters, &cycle, None).unwrap();
        (found.slots.to_vec(), found.set)
    };
    let whole = set(&[].into());
    assert!(whole.1.is_some());
    assert_eq!(set(&named(Arc::new(Listed(&[0, 1])))), whole);
    assert_eq!(set(&named(Arc::new(Listed(&[1])))), (vec![Slot(1)], None));
    // As many, but others: none is left of those that are not ejected.
    let ejected = set(&named(Arc::new(Listed(&[2, 3]))));
    assert_eq!(ejected, (vec![Slot(2), Slot(3)], None));
}
