//! The requests of a connection that have had no reply, or were not sent yet.

use std::collections::VecDeque;

use super::unordered::Unordered;

/// When a request was to be sent, and when it was handed to the kernel (or offered: what the
/// kernel had no room for is handed over later, and its time counts from the offer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) due: u64,
    pub(super) sent: u64,
}

/// The requests that have had no reply, the oldest first. A single one that was sent when it was
/// due is kept in place: with one request under way on each, a million connections need no more.
#[derive(Debug)]
pub(super) enum UnderWay {
    Nothing,
    One(u64),
    Many(Box<Queue>),
    /// Those of datagrams.
    Unordered(Box<Unordered>),
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    sent: VecDeque<Times>,
    /// When those were due that are not sent yet.
    waiting: VecDeque<u64>,
}

impl UnderWay {
    /// How many were sent.
    pub(super) fn len(&self) -> usize {
        match self {
            UnderWay::Nothing => 0,
            UnderWay::One(_) => 1,
            UnderWay::Many(queue) => queue.sent.len(),
            UnderWay::Unordered(requests) => requests.len(),
        }
    }

    /// When all of them were due, those too that were not sent.
    pub(super) fn all_due(&self) -> Vec<u64> {
        let due = |times: &Times| times.due;
        match self {
            UnderWay::Nothing => Vec::new(),
            &UnderWay::One(time) => vec![time],
            UnderWay::Many(queue) => {
                queue.sent.iter().map(due).chain(queue.waiting.clone()).collect()
            }
            UnderWay::Unordered(requests) => requests.all_due(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        match self {
            UnderWay::Nothing | UnderWay::One(_) => 0,
            UnderWay::Many(queue) => queue.waiting.len(),
            UnderWay::Unordered(requests) => requests.waiting.len(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, times: Times) {
        match self {
            UnderWay::Nothing if times.due == times.sent => *self = UnderWay::One(times.due),
            UnderWay::Many(queue) => queue.sent.push_back(times),
            UnderWay::Unordered(requests) => requests.push(times),
            UnderWay::Nothing | UnderWay::One(_) => self.queue().sent.push_back(times),
        }
    }

    /// Makes it a queue, of what it is.
    fn queue(&mut self) -> &mut Queue {
        let first = match self {
            &mut UnderWay::One(time) => Some(Times { due: time, sent: time }),
            _ => None,
        };
        if !matches!(self, UnderWay::Many(_)) {
            let sent = first.into_iter().collect();
            *self = UnderWay::Many(Box::new(Queue { sent, waiting: VecDeque::new() }));
        }
        let UnderWay::Many(queue) = self else { unreachable!("just made") };
        queue
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Times> {
        match self {
            UnderWay::Nothing => None,
            &mut UnderWay::One(time) => {
                *self = UnderWay::Nothing;
                Some(Times { due: time, sent: time })
            }
            UnderWay::Many(queue) => queue.sent.pop_front(),
            UnderWay::Unordered(_) => unreachable!("none is the next"),
        }
    }

    pub(super) fn wait(&mut self, due: u64) {
        match self {
            UnderWay::Unordered(requests) => requests.waiting.push_back(due),
            _ => self.queue().waiting.push_back(due),
        }
    }

    pub(super) fn pop_waiting(&mut self) -> Option<u64> {
        match self {
            UnderWay::Nothing | UnderWay::One(_) => None,
            UnderWay::Many(queue) => queue.waiting.pop_front(),
            UnderWay::Unordered(requests) => requests.waiting.pop_front(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_order() {
        // Some are sent as soon as they are due, and some later.
        for late in [0, 5] {
            let mut under_way = UnderWay::Nothing;
            assert_eq!((under_way.pop(), under_way.len()), (None, 0));
            // One at a time, then more and more under way.
            let (mut pushed, mut popped) = (0, 0);
            let times = |due| Times { due, sent: due + late };
            for most in [1, 1, 2, 3, 1] {
                while under_way.len() < most {
                    under_way.push(times(pushed));
                    pushed += 1;
                }
                while under_way.len() > 0 {
                    assert_eq!(under_way.pop(), Some(times(popped)));
                    popped += 1;
                }
            }
            assert_eq!((pushed, popped, under_way.pop()), (8, 8, None));
        }
    }

    #[test]
    fn those_that_wait_are_apart_from_those_sent() {
        let mut under_way = UnderWay::Nothing;
        under_way.push(Times { due: 1, sent: 1 });
        assert_eq!(under_way.all_due(), [1]);
        under_way.queue().waiting.extend([2, 3]);
        assert_eq!(under_way.all_due(), [1, 2, 3]);
        assert_eq!((under_way.len(), under_way.waiting()), (1, 2));
        assert_eq!(under_way.pop(), Some(Times { due: 1, sent: 1 }));
        assert_eq!((under_way.pop(), under_way.pop_waiting()), (None, Some(2)));
        assert_eq!((under_way.len(), under_way.waiting()), (0, 1));
    }
}
