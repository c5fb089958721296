//! The data that the polling VM publishes for the others: the members, and their metrics.
//!
//! Two values, because members change rarely and metrics all the time: a VM decodes a value only if its
//! version is another one than at its last tick.

use epp_core::endpoints::monitor::Revisions;
use epp_core::endpoints::store::{Condition, EndpointStore, Member};
use epp_core::picker::peers::PeerView;
use epp_core::plugins::source::metrics_data_source::MAX_INTERVAL;
use epp_core::scheduling::{Metrics, Slot, MAX_ATTRIBUTES, MAX_MODEL_BYTES};
use epp_core::time::{whole_millis, Timestamp};
use serde::{Deserialize, Serialize};

use crate::codec::{self, MAX_ENDPOINTS, MAX_TEXT_BYTES};
use crate::shared::Shared;

/// The snapshots that one VM publishes while it polls, and adopts while it does not.
#[derive(Debug)]
pub struct Snapshots {
    members_key: String,
    metrics_key: String,
    /// Versions of the values that were adopted last.
    members_version: Option<u32>,
    metrics_version: Option<u32>,
    /// The revisions that were published last.
    published: Revisions,
    /// The checksum of the members that were published last. Discovery responds once a second, mostly with the same ones.
    members_sum: Option<[u8; 8]>,
}

impl Snapshots {
    /// Returns those under these keys.
    pub fn new(base: &str) -> Self {
        Self {
            members_key: format!("{base}/members"),
            metrics_key: format!("{base}/metrics"),
            members_version: None,
            metrics_version: None,
            published: Revisions::default(),
            members_sum: None,
        }
    }

    /// Publishes what this VM's picker has found, if there is news. What the store refuses is published again with the
    /// next call.
    pub fn publish(&mut self, picker: &PeerView<'_>, shared: &mut Shared<'_>) {
        let revisions = picker.revisions();
        if self.published.members != revisions.members {
            let value = encode_members(picker.endpoints());
            let sum = value.last_chunk().copied();
            if self.members_sum == sum || shared.set(&self.members_key, &value, None) {
                self.members_sum = sum;
                self.published.members = revisions.members;
            }
        }
        if self.published.metrics != revisions.metrics {
            let value = encode_metrics(picker.endpoints());
            if shared.set(&self.metrics_key, &value, None) {
                self.published.metrics = revisions.metrics;
            }
        }
    }

    /// Feeds the picker what another one has published, if it is news. A value that is not recognised is
    /// looked at again, since it may be whole then.
    pub fn adopt(&mut self, picker: &mut PeerView<'_>, shared: &mut Shared<'_>) {
        // Another VM publishes them now.
        self.members_sum = None;
        let news = |known, version| known != Some(version);
        if let Some((value, version)) = shared.bytes(&self.members_key) {
            if news(self.members_version, version) {
                let members = decode_members(&value);
                shared.count(members.is_none());
                if let Some(members) = members {
                    self.members_version = Some(version);
                    picker.adopt_members(members);
                }
            }
        }
        if let Some((value, version)) = shared.bytes(&self.metrics_key) {
            if news(self.metrics_version, version) {
                let metrics = decode_metrics(&value);
                shared.count(metrics.is_none());
                if let Some(metrics) = metrics {
                    self.metrics_version = Some(version);
                    picker.adopt_metrics(metrics);
                }
            }
        }
    }
}

/// Returns the members with their slots.
pub fn encode_members(endpoints: &EndpointStore) -> Vec<u8> {
    let members = endpoints.pool.iter();
    let members = members.map(|(slot, endpoint)| (slot, Member::from(endpoint)));
    codec::encode(&members.collect::<Vec<_>>())
}

/// Returns the members of a value with their slots, unless it is not recognised.
pub fn decode_members(value: &[u8]) -> Option<Vec<(Slot, Member)>> {
    let is_short = |text: &String| text.len() <= MAX_TEXT_BYTES;
    let is_sound = |(slot, member): &(Slot, Member)| {
        let mut labels = member.labels.iter();
        slot.index() < MAX_ENDPOINTS
            && is_short(&member.name)
            && is_short(&member.address)
            && labels.all(|(name, value)| is_short(name) && is_short(value))
    };
    let members: Vec<(Slot, Member)> = codec::decode(value)?;
    let is_whole = members.len() <= MAX_ENDPOINTS && members.iter().all(is_sound);
    is_whole.then_some(members)
}

/// A condition as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredCondition {
    /// In milliseconds since 1970; 0: never.
    scraped: u64,
    failures: u32,
    /// In milliseconds.
    rest: u64,
}

impl From<Condition> for StoredCondition {
    fn from(condition: Condition) -> Self {
        Self {
            scraped: condition.scraped.map_or(0, Timestamp::as_millis),
            failures: condition.failures,
            rest: condition.rest,
        }
    }
}

impl From<StoredCondition> for Condition {
    fn from(stored: StoredCondition) -> Self {
        let scraped = Some(stored.scraped).filter(|scraped| *scraped > 0);
        Self {
            scraped: scraped.map(Timestamp::from_millis),
            failures: stored.failures,
            rest: stored.rest.min(whole_millis(MAX_INTERVAL)),
        }
    }
}

/// Returns what the endpoints' pages said.
pub fn encode_metrics(endpoints: &EndpointStore) -> Vec<u8> {
    let metrics = endpoints.pool.iter().filter_map(|(slot, _)| {
        let condition = StoredCondition::from(endpoints.condition(slot));
        Some((slot, condition, endpoints.page(slot)?))
    });
    codec::encode(&metrics.collect::<Vec<_>>())
}

/// Returns what a value says of the endpoints' pages, unless it is not recognised.
pub fn decode_metrics(value: &[u8]) -> Option<Vec<(Slot, Condition, Metrics)>> {
    let all: Vec<(Slot, StoredCondition, Metrics)> = codec::decode(value)?;
    let is_short = |(_, _, metrics): &(Slot, StoredCondition, Metrics)| {
        let mut adapters = metrics.lora.active.iter().chain(&metrics.lora.waiting);
        adapters.all(|name| name.len() <= MAX_TEXT_BYTES)
    };
    let is_bounded = |(_, _, metrics): &(Slot, StoredCondition, Metrics)| {
        metrics.attributes.len() <= MAX_ATTRIBUTES
    };
    if all.len() > MAX_ENDPOINTS || !all.iter().all(|one| is_short(one) && is_bounded(one)) {
        return None;
    }
    let read = all.into_iter().map(|(slot, condition, mut metrics)| {
        for number in [
            &mut metrics.waiting,
            &mut metrics.running,
            &mut metrics.kv_usage,
        ] {
            // Scorers take it for a missing one in any case.
            number.take_if(|number| number.is_nan());
        }
        metrics.attributes.retain(|(_, value)| value.is_finite());
        metrics.model.take_if(|model| model.len() > MAX_MODEL_BYTES);
        metrics.block_size.take_if(|size| *size == 0);
        metrics.num_blocks.take_if(|blocks| *blocks == 0);
        (slot, condition.into(), metrics)
    });
    Some(read.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Traffic;
    use crate::{InProcess, Store};
    use epp_core::config;
    use epp_core::endpoints::load_report::LoadReport;
    use epp_core::picker::Picker;
    use epp_core::scheduling::Health;
    use epp_core::time::Clock;
    use std::time::Duration;

    /// A store that refuses all.
    struct Refusing;

    impl Store for Refusing {
        fn get(&mut self, _: &str) -> Option<(Vec<u8>, u32)> {
            None
        }

        fn set(&mut self, _: &str, _: &[u8], _: Option<u32>) -> bool {
            false
        }
    }

    #[test]
    fn what_the_store_refused_is_published_again_though_nothing_changes() {
        let document = include_str!("../../../tests/fixtures/prefix-one-endpoint.yaml");
        let mut picker = Picker::new(config::load(document).unwrap().plan, 1);
        picker.tick(Timestamp::from_millis(1_000));
        let mut snapshots = Snapshots::new("base");
        let mut publish = |store: &mut dyn Store| {
            let mut traffic = Traffic::default();
            snapshots.publish(&picker.peers(), &mut Shared::new(store, &mut traffic));
            traffic.written
        };
        assert!(publish(&mut Refusing) > 0);
        let mut memory = InProcess::default();
        assert!(publish(&mut memory) > 0);
        let (value, _) = memory.get("base/members").unwrap();
        assert_eq!(decode_members(&value).unwrap().len(), 1);
        let (value, _) = memory.get("base/metrics").unwrap();
        assert_eq!(decode_metrics(&value).unwrap().len(), 1);
        assert_eq!(publish(&mut memory), 0, "nothing is new");
    }

    fn at(millis: u64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(millis))
    }

    fn store(scraped: u64) -> EndpointStore {
        let mut store = EndpointStore::default();
        let member = Member {
            name: "p".to_owned(),
            health: Health::Healthy,
            ..Member::default()
        };
        store.set_member(Slot(0), &member);
        if scraped > 0 {
            store.set_metrics(
                Slot(0),
                Metrics::default(),
                false,
                Timestamp::from_millis(scraped),
            );
        }
        store
    }

    #[test]
    fn names_of_adapters_are_bounded() {
        let read = |bytes: usize, waits: bool| {
            let mut store = store(0);
            let mut metrics = Metrics::default();
            let names = match waits {
                true => &mut metrics.lora.waiting,
                false => &mut metrics.lora.active,
            };
            names.push("a".repeat(bytes));
            store.set_metrics(Slot(0), metrics, true, Timestamp::from_millis(1_000));
            decode_metrics(&encode_metrics(&store)).is_some()
        };
        for waits in [false, true] {
            assert!(read(MAX_TEXT_BYTES, waits));
            assert!(!read(MAX_TEXT_BYTES + 1, waits));
        }
    }

    #[test]
    fn what_a_response_reports_is_not_published_as_a_page() {
        let mut store = store(0);
        let page = Metrics {
            waiting: Some(7.0),
            kv_usage: Some(0.5),
            ..Metrics::default()
        };
        store.refresh(
            &Clock::starting_at(Timestamp::from_millis(1_000)),
            Duration::from_secs(2),
        );
        let read = Timestamp::from_millis(1_000);
        store.set_metrics(Slot(0), page.clone(), true, read);
        let report =
            b"TEXT named_metrics.num_requests_waiting=0, named_metrics.kv_cache_usage_perc=0";
        let report = LoadReport::read(report).unwrap();
        store.set_report(Slot(0), report, Timestamp::from_millis(1_100));
        let shown = store.pool.get(Slot(0)).unwrap().metrics.waiting;
        assert_eq!(shown, Some(0.0));
        let published = decode_metrics(&encode_metrics(&store)).unwrap();
        assert_eq!(published, [(Slot(0), store.condition(Slot(0)), page)]);
    }

    #[test]
    fn a_change_of_the_source_is_no_sign_of_work_to_those_who_adopt_it() {
        let (mut poller, mut own) = (store(0), store(0));
        let mut works = |from_loads, running, at| {
            let metrics = Metrics {
                from_loads,
                running: Some(running),
                ..Metrics::default()
            };
            poller.set_metrics(Slot(0), metrics, false, Timestamp::from_millis(at));
            let clock = Clock::starting_at(Timestamp::from_millis(at));
            own.refresh(&clock, Duration::from_secs(2));
            own.adopt_metrics(decode_metrics(&encode_metrics(&poller)).unwrap());
            own.refresh(&clock, Duration::from_secs(2));
            own.worked_at(Slot(0)).is_some()
        };
        assert!(!works(false, 9.0, 1_000));
        assert!(!works(true, 5.0, 1_200));
        assert!(!works(false, 4.0, 1_400));
        assert!(works(false, 3.0, 1_600));
    }

    #[test]
    fn a_poller_that_has_just_begun_takes_nothing_back() {
        let begun = encode_metrics(&store(0));
        let mut own = store(1_000);
        let mut adopted = 0;
        adopted += own.adopt_metrics(decode_metrics(&begun).unwrap()).len();
        assert_eq!((own.condition(Slot(0)).scraped, adopted), (at(1_000), 0));
        let later = encode_metrics(&store(2_000));
        adopted += own.adopt_metrics(decode_metrics(&later).unwrap()).len();
        assert_eq!((own.condition(Slot(0)).scraped, adopted), (at(2_000), 1));
    }

    #[test]
    fn an_older_page_takes_nothing_back_unless_the_clock_was_set_back() {
        let older = encode_metrics(&store(100_000));
        for (known, stays) in [(100_001, true), (101_100, true), (101_101, false)] {
            let mut own = store(known);
            let mut adopted = 0;
            adopted += own.adopt_metrics(decode_metrics(&older).unwrap()).len();
            let expected = if stays {
                (at(known), 0)
            } else {
                (at(100_000), 1)
            };
            assert_eq!((own.condition(Slot(0)).scraped, adopted), expected);
        }
    }
}
