//! interim
use hashbrown::HashMap;
use std::collections::VecDeque;
#[derive(Debug, Default)]
struct Lru { stamps: HashMap<u64,u64>, order: VecDeque<(u64,u64)>, clock: u64, capacity: usize }
/// index
#[derive(Debug, Default)]
pub struct Index { sets: HashMap<u64, Vec<u32>>, lrus: HashMap<u32, Lru> }
/// matcher
#[derive(Debug, Default)]
pub struct Matcher { counts: Vec<u32>, stopped: bool }
impl Matcher {
    pub fn reset(&mut self) { self.counts.clear(); self.stopped=false; }
    pub fn restart(&mut self) { self.stopped=false; }
    pub fn counts(&self) -> &[u32] { &self.counts }
}
impl Index {
    pub fn new(_max: usize) -> Self { Self::default() }
    pub fn add(&mut self, slot: u32, hashes: impl Iterator<Item=u64>, capacity: usize) {
        let lru = self.lrus.entry(slot).or_default();
        if lru.capacity==0 { lru.capacity = capacity; }
        for h in hashes {
            lru.clock+=1;
            if lru.stamps.insert(h, lru.clock).is_none() { self.sets.entry(h).or_default().push(slot); }
            lru.order.push_back((h, lru.clock));
            while lru.stamps.len() > lru.capacity { if let Some((h,s))=lru.order.pop_front() { if lru.stamps.get(&h)==Some(&s) { lru.stamps.remove(&h); if let Some(v)=self.sets.get_mut(&h) { v.retain(|x| *x!=slot); if v.is_empty() { self.sets.remove(&h); } } } } }
        }
    }
    pub fn entries(&self)->usize { self.lrus.values().map(|l| l.stamps.len()).sum() }
    pub fn bytes(&self)->usize { self.entries()*64 }
    pub fn remove(&mut self, slot: u32) { if let Some(l)=self.lrus.remove(&slot) { for h in l.stamps.keys() { if let Some(v)=self.sets.get_mut(h) { v.retain(|x| *x!=slot); if v.is_empty() { self.sets.remove(h); } } } } }
    pub fn extend(&self, m: &mut Matcher, hash: u64) -> bool {
        if m.stopped { return false; }
        match self.sets.get(&hash) { Some(v) => { for s in v { let i=*s as usize; if m.counts.len()<=i { m.counts.resize(i+1,0);} if let Some(c)=m.counts.get_mut(i) { *c+=1; } } true } None => { m.stopped=true; false } }
    }
}
