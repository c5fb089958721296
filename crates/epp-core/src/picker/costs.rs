//! The cost of a request at an endpoint: its prompts' tokens, less what the endpoint holds of them, and those of the
//! response.

use crate::config::Plan;
use crate::prefix::walk::Walk;
use crate::request::BodyReader;
use crate::scheduling::{Cost, Pool, PrefixMatch, RequestView, Slot};

/// The most tokens that one request counts: more than any model's context. Plans may estimate the output at any
/// multiple of the prompt; with this bound no sum of requests wraps.
pub(super) const MAX_REQUEST_TOKENS: u64 = u32::MAX as u64;

/// Returns how much each endpoint holds of a request's prompts, as far as they were read.
pub(super) fn matches<'a>(walks: &'a mut [Walk], plan: &Plan, pool: &Pool) -> Vec<PrefixMatch<'a>> {
    let walks = walks.iter_mut().zip(&plan.producers);
    walks
        .map(|(walk, (_, producer))| PrefixMatch {
            total: walk.total() as f64,
            block_tokens: producer.block_tokens(pool),
            matched: walk.matched(),
        })
        .collect()
}

/// Returns how much each endpoint holds of the shortest and of the longest prompts that are still possible; `full`:
/// whether no further block counts.
pub(super) fn matches_at<'a>(
    walks: &'a mut [Walk],
    plan: &Plan,
    pool: &Pool,
    full: bool,
) -> (Vec<PrefixMatch<'a>>, Vec<PrefixMatch<'a>>) {
    let walks = walks.iter_mut().zip(&plan.producers);
    let matches = walks.map(|(walk, (_, producer))| {
        let most = match producer.block_spec(pool).max_blocks {
            _ if full => 0.0,
            None => f64::INFINITY,
            Some(most) => most as f64,
        };
        let total = walk.total() as f64;
        let shortest = PrefixMatch {
            total,
            block_tokens: producer.block_tokens(pool),
            matched: walk.matched(),
        };
        let total = most.max(total);
        (shortest, PrefixMatch { total, ..shortest })
    });
    matches.unzip()
}

/// Returns the cost of a request as far as it was read, and the highest possible.
pub(super) fn costs(plan: &Plan, reader: &BodyReader, reading: bool) -> (Cost, Cost) {
    if !plan.needs.tokens {
        return (Cost::default(), Cost::default());
    }
    let allowed = reader.max_tokens().map(|most| most as f64);
    let cost = |prompt: usize, allowed| {
        let load = plan.load.as_ref();
        Cost {
            prompt: prompt as f64,
            output: load.map_or(0.0, |load| load.output(prompt as f64, allowed)),
            prefix: plan.discounts,
        }
    };
    // A field that limits the output may still come.
    let least = if reading { Some(0.0) } else { allowed };
    let most = if reading { None } else { allowed };
    (
        cost(reader.prompt_tokens(), least),
        cost(reader.max_prompt_tokens(), most),
    )
}

/// Returns the tokens that a request costs the endpoint in this slot, as far as it was read.
pub(super) fn tokens_at(
    slot: Slot,
    walks: &mut [Walk],
    reader: &BodyReader,
    plan: &Plan,
    pool: &Pool,
) -> u64 {
    let Some(load) = plan.load.as_ref().filter(|_| plan.needs.tokens) else {
        return 0;
    };
    let prompt = reader.prompt_tokens() as f64;
    let allowed = reader.max_tokens().map(|most| most as f64);
    let prefix = matches(walks, plan, pool);
    let request = RequestView {
        prefix: &prefix,
        cost: Cost {
            prompt,
            output: load.output(prompt, allowed),
            prefix: plan.discounts,
        },
        ..RequestView::default()
    };
    (request.tokens_at(slot) as u64).min(MAX_REQUEST_TOKENS)
}
