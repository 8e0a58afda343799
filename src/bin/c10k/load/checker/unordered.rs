//! Requests whose replies may come in any order, or never.

use std::collections::VecDeque;

use super::under_way::Times;

/// How many requests that were given up are remembered, so that their replies are known as late.
const GIVEN_UP_MAX: usize = 1_024;

/// The requests of a socket of datagrams.
///
/// ```text
///             first              passed        next
///   given up  |  sent  -  sent  -  |    sent   |
///                      answered
/// ```
///
/// What is before `first` is answered or given up; of those between, some are answered already: the
/// newest of them is the last one passed.
#[derive(Debug, Default)]
pub(super) struct Unordered {
    sent: VecDeque<Option<Times>>,
    /// How many of those are the newest that was answered, or older.
    passed: usize,
    /// How many of those have had no reply.
    under_way: usize,
    /// When those were due that are not sent yet.
    pub(super) waiting: VecDeque<u64>,
    /// Their numbers, and when they were sent; the newest first.
    given_up: VecDeque<(u32, u64)>,
}

/// What a reply is the reply to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Matched {
    /// A request under way; and whether a newer one was answered before it.
    Answers(Times, bool),
    /// One that was given up, and was sent then.
    TooLate(u64),
    Nothing,
}

impl Unordered {
    pub(super) fn len(&self) -> usize {
        self.under_way
    }

    pub(super) fn push(&mut self, times: Times) {
        self.sent.push_back(Some(times));
        self.under_way += 1;
    }

    /// Finds the request that was answered; `next` is the number of the next one to be sent.
    ///
    /// The first to be looked at is the one behind the newest that was answered: it is the one, if
    /// none was lost. If many were, they are not looked at for each reply again.
    pub(super) fn take(&mut self, next: u32, answers: impl Fn(u32) -> bool) -> Matched {
        let first = next.wrapping_sub(self.sent.len() as u32);
        let number = |at: usize| first.wrapping_add(at as u32);
        let mut each = (self.passed..self.sent.len()).chain(0..self.passed);
        let found = each.find(|&at| self.sent[at].is_some() && answers(number(at)));
        if let Some(at) = found {
            let times = self.sent[at].take().expect("just looked");
            self.under_way -= 1;
            let overtaken = at < self.passed;
            self.passed = self.passed.max(at + 1);
            self.forget_answered();
            return Matched::Answers(times, overtaken);
        }
        let late = self.given_up.iter().position(|&(number, _)| answers(number));
        match late.and_then(|at| self.given_up.remove(at)) {
            Some((_, sent)) => Matched::TooLate(sent),
            None => Matched::Nothing,
        }
    }

    /// When all of them were due, those too that were not sent.
    pub(super) fn all_due(&self) -> Vec<u64> {
        let sent = self.sent.iter().flatten().map(|times| times.due);
        sent.chain(self.waiting.iter().copied()).collect()
    }

    /// Gives up those that were sent before this time, and returns when they were due.
    pub(super) fn give_up(&mut self, next: u32, sent_before: u64) -> Vec<u64> {
        let mut given_up = Vec::new();
        while let Some(Some(times)) = self.sent.front()
            && times.sent < sent_before
        {
            let (due, sent) = (times.due, times.sent);
            let number = next.wrapping_sub(self.sent.len() as u32);
            self.forget_first();
            self.under_way -= 1;
            self.given_up.truncate(GIVEN_UP_MAX - 1);
            self.given_up.push_front((number, sent));
            given_up.push(due);
            self.forget_answered();
        }
        given_up
    }

    fn forget_answered(&mut self) {
        while let Some(None) = self.sent.front() {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        self.sent.pop_front();
        self.passed = self.passed.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(sent: u64) -> Times {
        Times { due: sent, sent }
    }

    #[test]
    fn replies_come_in_any_order_once() {
        let mut requests = Unordered::default();
        // Numbers 10 to 14, sent at times 0 to 4.
        (0..5).for_each(|time| requests.push(times(time)));
        let mut take = |number| requests.take(15, |other| other == number);
        assert_eq!(take(10), Matched::Answers(times(0), false));
        assert_eq!(take(13), Matched::Answers(times(3), false));
        assert_eq!(take(13), Matched::Nothing);
        assert_eq!(take(15), Matched::Nothing, "not sent yet");
        assert_eq!(take(11), Matched::Answers(times(1), true));
        assert_eq!(take(12), Matched::Answers(times(2), true));
        assert_eq!(take(14), Matched::Answers(times(4), false));
        assert_eq!((requests.len(), requests.sent.len()), (0, 0));
    }

    #[test]
    fn what_is_given_up_may_still_come_once() {
        let mut requests = Unordered::default();
        (0..5).for_each(|time| requests.push(times(time)));
        assert_eq!(requests.take(5, |number| number == 1), Matched::Answers(times(1), false));
        assert_eq!(requests.all_due(), [0, 2, 3, 4]);
        assert_eq!(requests.give_up(5, 3), [0, 2]);
        assert_eq!((requests.len(), requests.give_up(5, 3)), (2, vec![]));
        assert_eq!(requests.take(5, |number| number == 2), Matched::TooLate(2));
        assert_eq!(requests.take(5, |number| number == 2), Matched::Nothing);
        assert_eq!(requests.take(5, |number| number == 1), Matched::Nothing, "it was answered");
        assert_eq!(requests.take(5, |number| number == 3), Matched::Answers(times(3), false));
        assert_eq!(requests.give_up(5, u64::MAX), [4]);
        assert_eq!((requests.len(), requests.sent.len()), (0, 0));
    }

    #[test]
    fn what_is_lost_is_not_in_the_way_of_the_next() {
        let mut requests = Unordered::default();
        (0..9).for_each(|time| requests.push(times(time)));
        assert_eq!(requests.take(9, |number| number == 2), Matched::Answers(times(2), false));
        // Short messages are the same again soon; and with no verification any reply will do.
        let even = |number| number % 2 == 0;
        for (time, overtaken) in [(4, false), (6, false), (8, false), (0, true)] {
            assert_eq!(requests.take(9, even), Matched::Answers(times(time), overtaken));
        }
        assert_eq!(requests.take(9, even), Matched::Nothing);
        assert_eq!(requests.give_up(9, 4), [1, 3]);
        requests.push(times(9));
        assert_eq!(requests.take(10, |number| number == 5), Matched::Answers(times(5), true));
        assert_eq!(requests.take(10, |number| number == 9), Matched::Answers(times(9), false));
        assert_eq!(requests.take(10, |number| number == 7), Matched::Answers(times(7), true));
        assert_eq!((requests.len(), requests.sent.len(), requests.passed), (0, 0, 0));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut requests = Unordered::default();
        for next in 1..5_000_u32 {
            requests.push(times(0));
            assert_eq!(requests.give_up(next, 1), [0]);
        }
        assert_eq!(requests.given_up.len(), GIVEN_UP_MAX);
        assert_eq!(requests.take(5_000, |number| number == 4_000), Matched::TooLate(0));
        assert_eq!(requests.take(5_000, |number| number == 3_000), Matched::Nothing);
    }
}
