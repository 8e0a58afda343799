//! The reactor against a naive model of it: sources, stale events, asking again, deadlines and
//! timers, in any order, also from within a turn.

mod support {
    pub(crate) mod scripted;
}

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use c10k::poller::{Interest, Readiness, Token};
use c10k::{Handler, Reactor, TimerId};
use proptest::collection::vec;
use proptest::prelude::*;

use support::scripted::{Scripted, any_fd, scripted};

type Loop = Reactor<OwnedFd, Scripted>;

const FAR: Duration = Duration::from_secs(86_400);

/// What is done to the reactor. Sources and timers are picked from all that there ever were.
#[derive(Debug, Clone, Copy)]
enum Op {
    Add,
    Close(usize),
    Remove(usize),
    Again(usize),
    Deadline(usize, bool),
    ClearDeadline(usize),
    Timer(bool),
    CancelTimer(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = 0..1000_usize;
    prop_oneof![
        4 => Just(Op::Add),
        3 => pick.clone().prop_map(Op::Close),
        1 => pick.clone().prop_map(Op::Remove),
        3 => pick.clone().prop_map(Op::Again),
        3 => (pick.clone(), any::<bool>()).prop_map(|(i, due)| Op::Deadline(i, due)),
        1 => pick.clone().prop_map(Op::ClearDeadline),
        1 => any::<bool>().prop_map(Op::Timer),
        1 => pick.prop_map(Op::CancelTimer),
    ]
}

/// What the model knows of a source.
struct Source {
    token: Token,
    alive: bool,
    /// Whether the deadline, if there is one, is due.
    deadline: Option<bool>,
    asked_again: bool,
}

#[derive(Default)]
struct Model {
    /// All there ever were.
    sources: Vec<Source>,
    /// All there ever were, and of those still armed, whether they are due.
    timers: Vec<(TimerId, Option<bool>)>,
    /// What has yet to be told in this turn.
    events: VecDeque<Token>,
    again_now: VecDeque<Token>,
    again_next: Vec<Token>,
    /// What the handler does when it is told something.
    reactions: VecDeque<Op>,
    stale: u64,
    turned: u64,
}

impl Model {
    fn at(&mut self, token: Token) -> &mut Source {
        self.sources.iter_mut().find(|source| source.token == token).expect("never heard of it")
    }

    fn apply(&mut self, reactor: &mut Loop, op: Op) {
        let when = |due: bool| if due { Instant::now() } else { Instant::now() + FAR };
        if let Op::Add = op {
            let token = reactor.add(any_fd(), Interest::READ).unwrap();
            assert!(self.sources.iter().all(|source| source.token != token), "{token:?} again");
            self.sources.push(Source { token, alive: true, deadline: None, asked_again: false });
            return;
        }
        if let Op::Timer(due) = op {
            self.timers.push((reactor.set_timer(when(due)), Some(due)));
            return;
        }
        if let Op::CancelTimer(i) = op {
            if !self.timers.is_empty() {
                let i = i % self.timers.len();
                let (timer, armed) = &mut self.timers[i];
                assert_eq!(reactor.cancel_timer(*timer), armed.take().is_some());
            }
            return;
        }
        let (Op::Close(i)
        | Op::Remove(i)
        | Op::Again(i)
        | Op::Deadline(i, _)
        | Op::ClearDeadline(i)) = op
        else {
            unreachable!()
        };
        let n = self.sources.len();
        let Some(source) = self.sources.get_mut(i % n.max(1)) else { return };
        let token = source.token;
        assert_eq!(reactor.source(token).is_some(), source.alive);
        match op {
            Op::Close(_) => assert_eq!(reactor.close(token), source.alive),
            Op::Remove(_) => assert_eq!(reactor.remove(token).is_some(), source.alive),
            Op::Again(_) => reactor.again(token),
            Op::Deadline(_, due) => reactor.set_deadline(token, when(due)),
            _ => reactor.clear_deadline(token),
        }
        match op {
            Op::Close(_) | Op::Remove(_) => {
                source.alive = false;
                source.deadline = None;
            }
            Op::Again(_) if source.alive && !source.asked_again => {
                source.asked_again = true;
                self.again_next.push(token);
            }
            Op::Deadline(_, due) if source.alive => source.deadline = Some(due),
            Op::ClearDeadline(_) => source.deadline = None,
            _ => {}
        }
    }

    fn react(&mut self, reactor: &mut Loop) {
        if let Some(op) = self.reactions.pop_front() {
            self.apply(reactor, op);
        }
    }

    /// The next event that is to be told; those before it are stale.
    fn next_event(&mut self) -> Option<Token> {
        while let Some(token) = self.events.pop_front() {
            if self.at(token).alive {
                return Some(token);
            }
            self.stale += 1;
        }
        None
    }

    fn next_again(&mut self) -> Option<Token> {
        assert_eq!(self.next_event(), None, "events come first");
        while let Some(token) = self.again_now.pop_front() {
            let source = self.at(token);
            source.asked_again = false;
            if source.alive {
                return Some(token);
            }
        }
        None
    }

    fn due(&self) -> usize {
        let deadlines = self.sources.iter().filter(|source| source.deadline == Some(true)).count();
        deadlines + self.timers.iter().filter(|(_, due)| *due == Some(true)).count()
    }

    fn turn(&mut self, reactor: &mut Loop, script: &Scripted, events: &[usize]) {
        let n = self.sources.len();
        let picked = events.iter().filter(|_| n > 0).map(|i| self.sources[i % n].token);
        self.events = picked.collect();
        let batch: Vec<_> = self.events.iter().map(|&token| (token, Readiness::IN)).collect();
        script.batch(&batch);
        self.again_now = std::mem::take(&mut self.again_next).into();
        reactor.turn(self, Some(Duration::ZERO)).unwrap();
    }
}

impl Handler<OwnedFd, Scripted> for Model {
    fn ready(&mut self, reactor: &mut Loop, token: Token, readiness: Readiness) {
        let want = match readiness {
            Readiness::NONE => self.next_again(),
            _ => self.next_event(),
        };
        assert_eq!(Some(token), want);
        self.react(reactor);
    }

    fn deadline(&mut self, reactor: &mut Loop, token: Token) {
        assert_eq!(self.next_again(), None, "sources come first");
        let source = self.at(token);
        assert!(source.alive);
        assert_eq!(source.deadline.take(), Some(true));
        self.react(reactor);
    }

    fn timer(&mut self, reactor: &mut Loop, timer: TimerId) {
        assert_eq!(self.next_again(), None, "sources come first");
        let (_, armed) = self.timers.iter_mut().find(|(id, _)| *id == timer).unwrap();
        assert_eq!(armed.take(), Some(true));
        self.react(reactor);
    }

    fn turned(&mut self, reactor: &mut Loop) {
        assert_eq!(self.next_again(), None, "something was not told");
        self.turned += 1;
        let counts = reactor.counts();
        assert_eq!((counts.turns, counts.stale), (self.turned, self.stale));
        let alive = self.sources.iter().filter(|source| source.alive);
        assert_eq!(reactor.len(), alive.clone().count());
        assert!(alive.clone().all(|source| reactor.source(source.token).is_some()));
        let armed = alive.filter(|source| source.deadline.is_some()).count()
            + self.timers.iter().filter(|(_, armed)| armed.is_some()).count();
        let shown = format!("{reactor:?}");
        assert!(shown.contains(&format!("timers: {armed},")), "{shown}, not {armed} timers");
    }
}

/// Some ops, then a turn with these events, whose handler does these ops.
type Step = (Vec<Op>, Vec<usize>, Vec<Op>);

fn step() -> impl Strategy<Value = Step> {
    (vec(op(), 0..6), vec(0..1000_usize, 0..8), vec(op(), 0..8))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn agrees_with_the_model(steps in vec(step(), 1..20)) {
        let (mut reactor, script) = scripted();
        let mut model = Model::default();
        for (before, events, within) in steps {
            before.into_iter().for_each(|op| model.apply(&mut reactor, op));
            model.reactions = within.into();
            model.turn(&mut reactor, &script, &events);
        }
        // What is due comes, if it is given the time; what is not, does not.
        model.reactions.clear();
        while model.due() > 0 {
            model.turn(&mut reactor, &script, &[]);
        }
    }
}
