//! Sets of endpoints that hold the same blocks.
//!
//! The blocks of a popular prompt are held by many endpoints, and mostly by the same ones. Each such set is stored
//! once and has a number, so that a look-up compares numbers and counts a set's members once for all of its blocks.

use hashbrown::HashTable;

use super::key::TableKey;

/// Memory of a set beside its words: its element of `sets`, and its share of the table.
const SET_BYTES: usize = 48;

#[derive(Debug, Clone, Default)]
struct Set {
    /// One bit for each slot, without zero words at the end.
    words: Box<[u64]>,
    /// Number of blocks that exactly these endpoints hold.
    blocks: u32,
}

/// The sets. They are numbered from 1.
#[derive(Debug, Clone)]
pub struct Sets {
    key: TableKey,
    sets: Vec<Set>,
    /// Numbers of unused sets.
    free: Vec<u32>,
    /// The numbers of the sets in use, found by their words.
    numbers: HashTable<u32>,
    /// Memory of the sets in use.
    bytes: usize,
    /// The words of the set that is being looked for.
    words: Vec<u64>,
}

impl Sets {
    /// Creates the collection without sets. The table has this key.
    pub fn new(key: TableKey) -> Self {
        Self {
            key,
            sets: Vec::new(),
            free: Vec::new(),
            numbers: HashTable::new(),
            bytes: 0,
            words: Vec::new(),
        }
    }

    /// Returns the memory of the sets in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether an endpoint is in a set.
    pub fn contains(&self, number: u32, slot: u16) -> bool {
        let word = self.words_of(number).get(usize::from(slot) / 64);
        word.is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Returns the members of a set in ascending order.
    pub fn members(&self, number: u32) -> impl Iterator<Item = u16> + '_ {
        let words = (0..).zip(self.words_of(number));
        words.flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then_some((index * 64 + bit) as u16)
            })
        })
    }

    /// Adds `slot` to the holders of a block, which were the set `number`, or only the endpoint `first` if `number`
    /// is 0. Returns the number of the new set.
    pub fn with(&mut self, number: u32, first: u16, slot: u16) -> u32 {
        self.load(number, first);
        self.flip(slot);
        let made = self.intern();
        self.release(number);
        made
    }

    /// Removes `slot` from the holders of a block, which were the set `number`. Returns the number of the remaining
    /// set, or 0 and the endpoint if only one remains.
    pub fn without(&mut self, number: u32, slot: u16) -> (u32, u16) {
        self.load(number, 0);
        self.flip(slot);
        let left = self.words.iter().map(|word| word.count_ones()).sum::<u32>();
        let mut words = (0..).zip(&self.words);
        let last = words.find(|(_, word)| **word != 0);
        let last = last.map_or(0, |(index, word)| index * 64 + word.trailing_zeros());
        let made = if left > 1 { self.intern() } else { 0 };
        self.release(number);
        (made, last as u16)
    }

    fn words_of(&self, number: u32) -> &[u64] {
        let set = (number as usize).checked_sub(1);
        set.and_then(|index| self.sets.get(index))
            .map_or(&[], |set| &set.words)
    }

    /// Copies the set, or the single endpoint, into `words`.
    fn load(&mut self, number: u32, first: u16) {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        words.extend_from_slice(self.words_of(number));
        self.words = words;
        if number == 0 {
            self.flip(first);
        }
    }

    fn flip(&mut self, slot: u16) {
        let index = usize::from(slot) / 64;
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word ^= 1 << (slot % 64);
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Returns the number of the set in `words`, which gets one more block.
    fn intern(&mut self) -> u32 {
        let hash = hash(self.key, &self.words);
        let same = |number: &u32| *self.words_of(*number) == *self.words;
        if let Some(number) = self.numbers.find(hash, same).copied() {
            if let Some(set) = self.sets.get_mut(number as usize - 1) {
                set.blocks += 1;
            }
            return number;
        }
        let set = Set {
            words: self.words.as_slice().into(),
            blocks: 1,
        };
        self.bytes += SET_BYTES + size_of_val(&*set.words);
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.sets.push(Set::default());
                self.sets.len() as u32
            }
        };
        if let Some(unused) = self.sets.get_mut(number as usize - 1) {
            *unused = set;
        }
        let (sets, key) = (&self.sets, self.key);
        let hasher = |number: &u32| {
            let set = sets.get((*number as usize).saturating_sub(1));
            set.map_or(0, |set| self::hash(key, &set.words))
        };
        self.numbers.insert_unique(hash, number, hasher);
        number
    }

    /// Removes a block from a set. A set without blocks is freed.
    pub fn release(&mut self, number: u32) {
        let index = (number as usize).wrapping_sub(1);
        let Some(set) = self.sets.get_mut(index) else {
            return;
        };
        set.blocks -= 1;
        if set.blocks > 0 {
            return;
        }
        let words = std::mem::take(&mut set.words);
        self.bytes -= SET_BYTES + size_of_val(&*words);
        let found = self
            .numbers
            .find_entry(hash(self.key, &words), |known| *known == number);
        if let Ok(found) = found {
            found.remove();
        }
        self.free.push(number);
    }
}

fn hash(key: TableKey, words: &[u64]) -> u64 {
    let fold = |hash: u64, word: &u64| key.mix(hash ^ word);
    words.iter().fold(words.len() as u64, fold)
}
