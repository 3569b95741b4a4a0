//! Priority levels: seats, queues, borrowing. A state machine without a clock or a task of its own.
//!
//! Source: KEP-1040 (shuffle sharding, fair queuing) and the documentation's words on borrowing. A level may use more than
//! its nominal limit while others do not use what they lend. Invariants: the seats in use are at most the server's; a level
//! always finds the part of its limit that it does not lend, and one request of it always runs; a queue is never longer than
//! its bound. Beyond that: a flow that has seats leaves an eighth of its level's to those that have none, so that who asks
//! for little need not wait until another's long request has ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use meta::Value;

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    QueueFull,
    Limit,
    TimeOut,
}

impl Refusal {
    /// As in the metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::Limit => "concurrency-limit",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// Seats that were handed out.
#[derive(Debug)]
pub struct Entry {
    level: Arc<str>,
    queue: Option<usize>,
    width: usize,
    exempt: bool,
}

impl Entry {
    pub fn is_limited(&self) -> bool {
        !self.exempt
    }

    pub fn width(&self) -> usize {
        self.width
    }
}

struct Waiter<W> {
    who: W,
    width: usize,
}

struct Queue<W> {
    waiting: VecDeque<Waiter<W>>,
    /// Seat-seconds that the queue has had: the one with the fewest goes next.
    served_s: f64,
    /// Seats of its requests that run.
    in_use: usize,
}

impl<W> Queue<W> {
    fn is_idle(&self) -> bool {
        self.in_use == 0 && self.waiting.is_empty()
    }
}

struct Queuing {
    queues: usize,
    hand: usize,
    length: usize,
}

pub struct Level<W> {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    exempt: bool,
    shares: usize,
    lendable_percent: usize,
    borrowing_percent: Option<usize>,
    queuing: Option<Queuing>,
    nominal: usize,
    lendable: usize,
    in_use: usize,
    waiting: usize,
    /// A queue that was idle does not save up: it begins at what the level has served.
    served_s: f64,
    queues: Vec<Queue<W>>,
    /// Its object is gone: it goes once nobody is in it.
    leaving: bool,
}

/// The part of a level's seats that is kept for queues that have none.
const KEPT_FOR_NEWCOMERS: usize = 8;
/// What a request is taken to last before it has ended.
const GUESS: Duration = Duration::from_millis(3);

pub struct Levels<W> {
    seats: usize,
    in_use: usize,
    by_name: BTreeMap<Arc<str>, Level<W>>,
}

impl<W> Level<W> {
    pub fn nominal(&self) -> usize {
        self.nominal
    }

    /// What is always there for it.
    pub fn reserve(&self) -> usize {
        self.nominal - self.lendable.min(self.nominal)
    }

    /// The shortest of the queues that this flow is dealt; the first dealt of several.
    fn queue_of(&self, flow: u64, queuing: &Queuing) -> usize {
        let mut entropy = flow;
        // In order, to skip those that were dealt before: they are not in the deck any more.
        let mut dealt: Vec<usize> = Vec::with_capacity(queuing.hand);
        let mut best = (usize::MAX, usize::MAX, 0);
        for i in 0..queuing.hand.min(queuing.queues) {
            let left = (queuing.queues - i) as u64;
            let mut card = (entropy % left) as usize;
            entropy /= left;
            let mut at = 0;
            while dealt.get(at).is_some_and(|taken| *taken <= card) {
                (card, at) = (card + 1, at + 1);
            }
            dealt.insert(at, card);
            let queue = &self.queues[card];
            let length: usize = queue.waiting.iter().map(|w| w.width).sum();
            if (length, queue.in_use) < (best.0, best.1) {
                best = (length, queue.in_use, card);
            }
        }
        best.2
    }

    fn read(&mut self, object: &Value) {
        let number = |path: &[&str], default: usize| {
            object.int_at(path).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
        };
        self.uid = object.str_at(&["metadata", "uid"]).unwrap_or_default().into();
        self.exempt = object.str_at(&["spec", "type"]) == Some("Exempt");
        self.leaving = false;
        let part = if self.exempt { "exempt" } else { "limited" };
        self.shares = number(&["spec", part, "nominalConcurrencyShares"], if self.exempt { 0 } else { 30 });
        self.lendable_percent = number(&["spec", part, "lendablePercent"], 0).min(100);
        self.borrowing_percent =
            object.int_at(&["spec", part, "borrowingLimitPercent"]).and_then(|n| usize::try_from(n).ok());
        let response = &object["spec"]["limited"]["limitResponse"];
        let queuing = |member: &str, default| {
            response.int_at(&["queuing", member]).and_then(|n| usize::try_from(n).ok()).unwrap_or(default).max(1)
        };
        self.queuing = (!self.exempt && response.str_at(&["type"]) == Some("Queue")).then(|| Queuing {
            queues: queuing("queues", 64),
            hand: queuing("handSize", 8),
            length: queuing("queueLengthLimit", 50),
        });
        // Queues with somebody in them stay until they are empty, also when there are to be fewer.
        let wanted = self.queuing.as_ref().map_or(0, |q| q.queues);
        while self.queues.len() > wanted && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
        while self.queues.len() < wanted {
            self.queues.push(Queue { waiting: VecDeque::new(), served_s: 0.0, in_use: 0 });
        }
    }
}

impl<W> Levels<W> {
    pub fn new(seats: usize) -> Self {
        Levels { seats, in_use: 0, by_name: BTreeMap::new() }
    }

    pub fn get(&self, name: &str) -> Option<&Level<W>> {
        self.by_name.get(name).filter(|l| !l.leaving)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Level<W>> {
        self.by_name.values()
    }

    pub fn configure(&mut self, objects: &[Value]) {
        self.by_name.values_mut().for_each(|l| l.leaving = true);
        for object in objects {
            let name: Arc<str> = crate::metadata::name(object).into();
            self.by_name.entry(name.clone()).or_insert_with(|| Level::named(name)).read(object);
        }
        self.clear_out();
        let total: usize = self.by_name.values().filter(|l| !l.leaving).map(|l| l.shares).sum();
        for level in self.by_name.values_mut() {
            // Every level gets its share of the seats, rounded up.
            level.nominal =
                if level.leaving { level.nominal } else { (self.seats * level.shares).div_ceil(total.max(1)) };
            level.lendable = (level.nominal * level.lendable_percent + 50) / 100;
        }
    }

    fn clear_out(&mut self) {
        self.by_name.retain(|_, l| !l.leaving || l.in_use > 0 || l.waiting > 0);
    }

    /// What a level has at most, with all that it may borrow.
    pub fn most(&self, level: &Level<W>) -> usize {
        level.nominal + level.borrowing_percent.map_or(self.seats, |percent| level.nominal * percent / 100)
    }

    fn may_start(&self, level: &Level<W>, queue: Option<usize>, width: usize) -> bool {
        let is_newcomer = queue.is_none_or(|at| level.queues[at].in_use == 0);
        let width = width + if is_newcomer { 0 } else { level.nominal / KEPT_FOR_NEWCOMERS };
        let after = level.in_use + width;
        // One request at a time always goes on, however wide: or a narrow level would never serve a wide one.
        if level.in_use == 0 || after <= level.reserve() {
            return true;
        }
        // What is neither in use nor kept for another level.
        let others = self.by_name.values().filter(|l| l.name != level.name);
        let kept: usize = others.map(|l| l.reserve().saturating_sub(l.in_use)).sum();
        after <= self.most(level) && self.in_use + kept + width <= self.seats
    }

    /// Takes seats, or a place in a queue (`None`).
    /// `who` is only made for one who waits.
    pub fn enter(
        &mut self,
        name: &Arc<str>,
        flow: u64,
        width: usize,
        who: impl FnOnce() -> W,
    ) -> Result<Option<Entry>, Refusal> {
        let Some(level) = self.by_name.get(name) else { return Err(Refusal::Limit) };
        if level.exempt {
            return Ok(Some(Entry { level: name.clone(), queue: None, width, exempt: true }));
        }
        let width = width.clamp(1, level.nominal.max(1));
        let at = level.queuing.as_ref().map(|queuing| level.queue_of(flow, queuing));
        // Who has nothing yet does not stand behind those who wait for more.
        let is_first = level.waiting == 0 || at.is_some_and(|at| level.queues[at].is_idle());
        if is_first && self.may_start(level, at, width) {
            return Ok(Some(self.start(name.clone(), at, width)));
        }
        let Some(level) = self.by_name.get_mut(name) else { return Err(Refusal::Limit) };
        let (Some(queuing), Some(at)) = (&level.queuing, at) else {
            return Err(Refusal::Limit);
        };
        if level.queues[at].waiting.len() >= queuing.length {
            return Err(Refusal::QueueFull);
        }
        let served_s = level.served_s;
        let queue = &mut level.queues[at];
        if queue.waiting.is_empty() {
            queue.served_s = queue.served_s.max(served_s);
        }
        queue.waiting.push_back(Waiter { who: who(), width });
        level.waiting += 1;
        Ok(None)
    }

    fn start(&mut self, name: Arc<str>, queue: Option<usize>, width: usize) -> Entry {
        self.in_use += width;
        if let Some(level) = self.by_name.get_mut(&name) {
            level.in_use += width;
            if let Some(queue) = queue.and_then(|q| level.queues.get_mut(q)) {
                queue.served_s += width as f64 * GUESS.as_secs_f64();
                queue.in_use += width;
            }
        }
        Entry { level: name, queue, width, exempt: false }
    }

    /// The next of those who wait, if there are seats for one of them.
    pub fn next(&mut self) -> Option<(Entry, W)> {
        let (name, at) = self.by_name.values().filter(|l| l.waiting > 0).find_map(|level| {
            let first = |of: &dyn Fn(&Queue<W>) -> bool| {
                let waiting = level.queues.iter().enumerate().filter(|(_, q)| !q.waiting.is_empty() && of(q));
                let (at, queue) = waiting.min_by(|a, b| a.1.served_s.total_cmp(&b.1.served_s))?;
                let width = queue.waiting.front()?.width;
                self.may_start(level, Some(at), width).then(|| (level.name.clone(), at))
            };
            first(&|_| true).or_else(|| first(&|queue| queue.in_use == 0))
        })?;
        let level = self.by_name.get_mut(&name)?;
        level.served_s = level.served_s.max(level.queues[at].served_s);
        let Waiter { who, width } = level.queues[at].waiting.pop_front()?;
        level.waiting -= 1;
        Some((self.start(name, Some(at), width), who))
    }

    /// Gives seats back.
    pub fn leave(&mut self, entry: &Entry, lasted: Duration) {
        if entry.exempt {
            return;
        }
        self.in_use -= entry.width;
        let Some(level) = self.by_name.get_mut(&entry.level) else { return };
        level.in_use -= entry.width;
        if let Some(queue) = entry.queue.and_then(|q| level.queues.get_mut(q)) {
            queue.in_use -= entry.width;
            queue.served_s += entry.width as f64 * (lasted.as_secs_f64() - GUESS.as_secs_f64());
        }
        if level.leaving {
            self.clear_out();
        }
    }

    /// Takes those out of the queues who do not wait any more.
    pub fn forget(&mut self, gone: impl Fn(&W) -> bool) {
        for level in self.by_name.values_mut().filter(|l| l.waiting > 0) {
            for queue in &mut level.queues {
                queue.waiting.retain(|w| !gone(&w.who));
            }
            let left = level.queues.iter().map(|q| q.waiting.len()).sum();
            level.waiting = left;
        }
        self.clear_out();
    }
}

impl<W> Level<W> {
    fn named(name: Arc<str>) -> Self {
        Level {
            name,
            uid: "".into(),
            exempt: false,
            shares: 0,
            lendable_percent: 0,
            borrowing_percent: None,
            queuing: None,
            nominal: 0,
            lendable: 0,
            in_use: 0,
            waiting: 0,
            served_s: 0.0,
            queues: Vec::new(),
            leaving: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    fn limited(name: &str, shares: i64, lendable: i64, borrowing: Value, response: Value) -> Value {
        json!({"metadata": {"name": name, "uid": name}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "borrowingLimitPercent": borrowing,
            "limitResponse": response}}})
    }

    fn queuing(queues: i64, hand: i64, length: i64) -> Value {
        json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
    }

    fn fill(levels: &mut Levels<u32>, name: &str, flow: u64, width: usize) -> Vec<Entry> {
        let name: Arc<str> = name.into();
        std::iter::from_fn(|| levels.enter(&name, flow, width, || 0).ok().flatten()).take(1000).collect()
    }

    #[test]
    fn levels_share_and_borrow() {
        let reject = json!({"type": "Reject"});
        let mut levels = Levels::new(100);
        levels.configure(&[
            limited("a", 30, 50, Value::Null, reject.clone()),
            limited("b", 60, 50, json!(10), reject.clone()),
            limited("c", 10, 0, json!(0), reject),
        ]);
        let nominal: Vec<usize> = levels.iter().map(Level::nominal).collect();
        assert_eq!(nominal, [30, 60, 10]);
        // a takes its own 30 and what b lends; c lends nothing.
        let a = fill(&mut levels, "a", 0, 1);
        assert_eq!(a.len(), 60);
        // b finds what it does not lend, and no more while a has the rest; c its own.
        assert_eq!(fill(&mut levels, "b", 0, 1).len(), 30);
        assert_eq!(fill(&mut levels, "c", 0, 1).len(), 10);
        for entry in &a[..40] {
            levels.leave(entry, Duration::ZERO);
        }
        // b's own limit, then a tenth more of what a lends.
        assert_eq!(fill(&mut levels, "b", 0, 1).len(), 36);
        assert_eq!(levels.in_use, 96);
    }

    #[test]
    fn queues_take_turns_by_what_they_were_served() {
        let mut levels = Levels::new(4);
        levels.configure(&[limited("l", 10, 0, Value::Null, queuing(8, 1, 10))]);
        let name: Arc<str> = "l".into();
        let held: Vec<Entry> = (0..4).map(|_| levels.enter(&name, 0, 1, || 0).expect("free").expect("seats")).collect();
        // An elephant and a mouse, in different queues; the elephant's requests came first.
        for who in 1..=8 {
            assert!(levels.enter(&name, 1, 1, || who).expect("room").is_none());
        }
        assert!(levels.enter(&name, 2, 1, || 100).expect("room").is_none());
        assert_eq!(levels.get("l").map(|l| l.waiting), Some(9));
        let mut order = Vec::new();
        for entry in held {
            levels.leave(&entry, Duration::from_secs(1));
            while let Some((_, who)) = levels.next() {
                order.push(who);
            }
        }
        assert!(order.iter().position(|who| *who == 100).is_some_and(|at| at <= 1), "{order:?}");
    }

    #[test]
    fn who_asks_for_little_does_not_wait_for_who_asks_for_much() {
        let mut levels = Levels::new(80);
        levels.configure(&[limited("l", 10, 0, Value::Null, queuing(8, 1, 50))]);
        let name: Arc<str> = "l".into();
        let held = fill(&mut levels, "l", 1, 10);
        assert_eq!(held.len(), 7, "the flood leaves an eighth");
        assert_eq!(levels.get("l").map(|l| l.waiting), Some(1));
        let quiet = levels.enter(&name, 2, 1, || 0).expect("room").expect("seats at once");
        assert!(levels.enter(&name, 2, 8, || 0).expect("room").is_none(), "a second one stands in line");
        levels.leave(&quiet, Duration::ZERO);
        // Two of the flood wait first, but would take what is kept.
        assert!(levels.next().is_some_and(|(entry, _)| entry.width == 8 && entry.queue == Some(2)));
        assert!(levels.next().is_none());
    }

    #[test]
    fn queues_are_bounded_and_forget() {
        let mut levels = Levels::new(1);
        levels.configure(&[limited("l", 10, 0, Value::Null, queuing(4, 2, 3))]);
        let name: Arc<str> = "l".into();
        let held = levels.enter(&name, 7, 5, || 0).expect("free").expect("seats");
        let mut queued = 0;
        while levels.enter(&name, 7, 1, || queued).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, 6, "two queues of three");
        levels.forget(|who| *who % 2 == 0);
        assert_eq!(levels.get("l").map(|l| l.waiting), Some(3));
        levels.configure(&[]);
        assert!(levels.get("l").is_none());
        levels.leave(&held, Duration::ZERO);
        while let Some((entry, _)) = levels.next() {
            levels.leave(&entry, Duration::ZERO);
        }
        assert_eq!((levels.in_use, levels.iter().count()), (0, 0));
    }

    #[test]
    fn hands_are_without_repeats() {
        let mut levels: Levels<u32> = Levels::new(10);
        levels.configure(&[limited("l", 10, 0, Value::Null, queuing(128, 6, 50))]);
        let level = levels.get("l").expect("a level");
        let queuing = level.queuing.as_ref().expect("queues");
        let dealt: std::collections::BTreeSet<usize> =
            (0..10_000).map(|flow: u64| level.queue_of(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), queuing)).collect();
        assert_eq!(dealt.len(), 128);
    }
}
