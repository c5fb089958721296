//! Several gateways in front of one pool.

use std::collections::BTreeSet;

use fake_model_server::{Settings, Sim};

use crate::client::complete;
use crate::document;
use crate::proxy::{Proxy, Setup};

const CONVERSATIONS: usize = 24;
const TURNS: usize = 6;

/// Returns the scorers of a document, each with its weight.
fn scorers(weights: &[(&str, u32)]) -> String {
    let plugins = weights.iter().map(|(kind, _)| format!("{{type: {kind}}}"));
    let references = weights.iter();
    let references =
        references.map(|(kind, weight)| format!("{{pluginRef: {kind}, weight: {weight}}}"));
    document(
        &plugins.collect::<Vec<_>>().join(", "),
        &references.collect::<Vec<_>>().join(", "),
    )
}

/// Has two Envoys serve conversations, whose turns they take alternately. Returns the share of the prompts' tokens that
/// the pods had cached, and how many conversations stayed at one pod.
fn served(config: &str) -> (f64, usize) {
    let sim = Sim::start(8, &Settings::default()).unwrap();
    let mut pods = sim.addresses();
    let first = Setup::new(&pods, config).start();
    // The other one lists the same pods in another order.
    pods.rotate_left(3);
    pods.reverse();
    let gateways: [Proxy; 2] = [first, Setup::new(&pods, config).start()];
    let text = |conversation: usize, turns: usize| {
        let turn = |turn| format!("conversation {conversation}, turn {turn}. ").repeat(40);
        (0..3 + turns).map(turn).collect::<String>()
    };
    let mut targets = vec![BTreeSet::new(); CONVERSATIONS];
    for turn in 0..TURNS {
        for (conversation, targets) in targets.iter_mut().enumerate() {
            let gateway = &gateways[(turn + conversation) % 2];
            let response = complete(gateway.port, "m", &text(conversation, turn));
            assert_eq!(response.status, 200);
            targets.insert(response.pod().to_owned());
        }
    }
    let work: Vec<_> = sim.pods().map(|pod| pod.work()).collect();
    let cached: usize = work.iter().map(|work| work.cached_tokens).sum();
    let computed: usize = work.iter().map(|work| work.computed_tokens).sum();
    let stayed = targets.iter().filter(|targets| targets.len() == 1);
    (cached as f64 / (cached + computed) as f64, stayed.count())
}

#[test]
fn gateways_agree_on_the_pod_of_a_conversation_with_the_rendezvous_scorer() {
    let alone = [("prefix-cache-scorer", 3), ("active-request-scorer", 1)];
    let (alone, stayed) = served(&scorers(&alone));
    println!("each by its own index: {alone:.3} cached, {stayed} stayed");
    // In one of eight cases both choose the same pod by chance.
    assert!(stayed < CONVERSATIONS / 2, "{stayed}");
    let agreeing = [
        ("prefix-cache-scorer", 3),
        ("prefix-rendezvous-scorer", 1),
        ("active-request-scorer", 1),
    ];
    let (agreeing, stayed) = served(&scorers(&agreeing));
    println!("with the rendezvous scorer: {agreeing:.3} cached, {stayed} stayed");
    assert_eq!(stayed, CONVERSATIONS);
    assert!(agreeing > alone + 0.1, "{agreeing} {alone}");
}
