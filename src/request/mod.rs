//! interim
use xxhash_rust::xxh64::xxh64;
use crate::prefix::digest::BlockSpec;
use std::ops::Range;
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Api { Chat, Completions, #[default] PassThrough }
impl Api { pub fn of_path(p:&[u8])->Self { if p.ends_with(b"/v1/chat/completions") {Self::Chat} else if p.ends_with(b"/v1/completions") {Self::Completions} else {Self::PassThrough} } }
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fact<T> { Unknown, Absent, Known(T) }
impl<T> Fact<T> { pub fn known(self)->Option<T> { if let Self::Known(v)=self {Some(v)} else {None} } }
#[derive(Debug, Clone, Default)]
pub struct ReadPlan { pub seed: bool, pub blocks: Vec<BlockSpec> }
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending { pub earlier_parts: bool }
#[derive(Debug, Default)]
pub struct BodyReader { api: Api, plan: ReadPlan, buf: Vec<u8>, done: bool, model: Option<String>, salt: Option<String>, digests: Vec<Vec<u64>> }
pub fn readable(ct:&[u8], ce:&[u8])->bool { ce.is_empty() && ct.starts_with(b"application/json") }
impl BodyReader {
    pub fn reset(&mut self, api: Api, plan:&ReadPlan) { *self = Self { api, plan: plan.clone(), ..Self::default() }; }
    pub fn push(&mut self, b:&[u8]) { self.buf.extend_from_slice(b); }
    pub fn finish(&mut self) {
        self.done = true;
        let Ok(v) = serde_json::from_slice::<serde_json::Value>(&self.buf) else { return };
        self.model = v.get("model").and_then(|m| m.as_str()).map(str::to_owned);
        self.salt = v.get("cache_salt").and_then(|m| m.as_str()).map(str::to_owned);
        let mut text = String::new();
        match self.api { Api::Chat => for m in v.get("messages").and_then(|m| m.as_array()).into_iter().flatten() {
            let (r,c)=(m.get("role").and_then(|r| r.as_str()), m.get("content").and_then(|r| r.as_str()));
            if let (Some(r),Some(c))=(r,c) { if self.plan.seed { text += &format!("<|im_start|>{r}\n{c}<|im_end|>\n"); } else { text += r; text += c; } } },
            Api::Completions => if let Some(p)=v.get("prompt").and_then(|p| p.as_str()) { text += p; }, _=>{} }
        for s in &self.plan.blocks {
            let mut bytes = text.clone().into_bytes();
            if s.keep_partial { while bytes.len()%4!=0 { bytes.push(0); } }
            let mut d = Vec::new();
            for c in bytes.chunks(s.block_bytes) { if d.len()==s.max_blocks || (c.len()<s.block_bytes && !s.keep_partial) { break; } d.push(xxh64(c,0)); }
            self.digests.push(d);
        }
    }
    pub fn needs_more(&self)->bool { !self.done }
    pub fn model(&self)->Fact<&str> { self.fact(&self.model) }
    pub fn salt(&self)->Fact<&str> { self.fact(&self.salt) }
    fn fact<'a>(&self, v:&'a Option<String>)->Fact<&'a str> { match v { Some(v)=>Fact::Known(v), None if self.done=>Fact::Absent, None=>Fact::Unknown } }
    pub fn prompts(&self, stream: usize)->impl Iterator<Item=&[u64]> { self.digests.get(stream).map(|d| d.as_slice()).into_iter() }
    pub fn pending(&self)->Pending { Pending { earlier_parts: !self.done } }
    pub fn window_full(&self)->bool { self.done }
    pub fn may_add_prompts(&self)->bool { !self.done }
    pub fn reread(&self)->Option<Range<usize>> { None }
    pub fn feed_again(&mut self, _:usize, _:&[u8]) {}
}
