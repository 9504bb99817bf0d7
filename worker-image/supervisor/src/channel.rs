//! The pipes to one executor: requests out, answers and output in.
//!
//! The form of requests and answers is that of `executor.py`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nix::fcntl::OFlag;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use uuid::Uuid;
use waypost_link::{Limits, Outcome};

use crate::machine::Event;
use crate::output::Output;

const ANSWER: usize = 4 + 1 + 8 + TASK;
/// A task's id as text.
const TASK: usize = 36;
/// Bodies up to this size are copied out of the buffer that they were read into, so that they do not keep it alive.
const COPIED_MAX: usize = 16 * 1024;
/// How much output is read before something else gets its turn.
const OUTPUT_AT_ONCE: usize = 256 * 1024;

/// One executor's end here.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    output: pipe::Receiver,
    state: RefCell<State>,
    output_open: Cell<bool>,
    /// The executor has ended. What it wrote last may be there before the runtime has heard of it, so it is not asked.
    ended: Cell<bool>,
    /// Wakes whoever waits in [`Channel::ready`] when there is something to write.
    unwritten: Notify,
}

#[derive(Debug)]
struct State {
    received: BytesMut,
    unwritten: VecDeque<Bytes>,
    /// The task that was given and not answered.
    given: Option<[u8; TASK]>,
    output: Output,
}

/// Who is asked whether there is output: the runtime costs nothing, and may not have heard of the last of it.
#[derive(Clone, Copy)]
enum Asked {
    Runtime,
    System,
}

/// What an executor says.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) run_time_ns: u64,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn into_event(self, slot: u32, generation: u64) -> Event {
        Event::Answer {
            slot,
            generation,
            outcome: self.outcome,
            run_time_ns: self.run_time_ns,
            body: self.body,
        }
    }
}

/// The descriptors that the executor itself gets.
pub(crate) struct ExecutorEnds {
    pub(crate) channel: OwnedFd,
    pub(crate) output: OwnedFd,
}

/// The executor has closed its end, or wrote what is no answer.
#[derive(Debug)]
pub(crate) struct Lost;

impl Channel {
    /// A channel for the next executor of `slot`, and the ends to give to it.
    ///
    /// # Errors
    /// The system's: too many open files, for one.
    pub(crate) fn open(slot: u32) -> io::Result<(Rc<Self>, ExecutorEnds)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let channel = Rc::new(Self {
            stream: UnixStream::from_std(ours)?,
            output: pipe::Receiver::from_owned_fd(reader)?,
            state: RefCell::new(State {
                received: BytesMut::new(),
                unwritten: VecDeque::new(),
                given: None,
                output: Output::new(slot),
            }),
            output_open: Cell::new(true),
            ended: Cell::new(false),
            unwritten: Notify::new(),
        });
        let ends = ExecutorEnds {
            channel: theirs.into(),
            output: writer,
        };
        Ok((channel, ends))
    }

    /// Gives a task to the executor: written at once as far as the socket takes it.
    pub(crate) fn give(&self, task: Uuid, serializers: &[String], body: Bytes) {
        let serializers = serializers.join("\n");
        let mut head = BytesMut::with_capacity(8 + TASK + serializers.len() + body.len().min(COPIED_MAX));
        // Both fit: the link takes neither bodies nor headers of that size.
        head.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        head.put_u32(u32::try_from(serializers.len()).unwrap_or(u32::MAX));
        let mut text = [0; TASK];
        task.hyphenated().encode_lower(&mut text);
        head.put_slice(&text);
        head.put_slice(serializers.as_bytes());
        let mut state = self.state.borrow_mut();
        state.given = Some(text);
        // All that was printed before is there, even if the runtime has not heard of it yet.
        self.take_output(&mut state, Asked::System);
        state.output.begin(task);
        if body.len() <= COPIED_MAX {
            head.put_slice(&body);
            state.unwritten.push_back(head.freeze());
        } else {
            state.unwritten.extend([head.freeze(), body]);
        }
        self.write(&mut state);
        if !state.unwritten.is_empty() {
            self.unwritten.notify_one();
        }
    }

    fn write(&self, state: &mut State) {
        while let Some(front) = state.unwritten.front_mut() {
            match self.stream.try_write(front) {
                Ok(count) if count < front.len() => front.advance(count),
                Ok(_) => {
                    state.unwritten.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The reading side learns that the executor is gone.
                Err(_) => state.unwritten.clear(),
            }
        }
    }

    /// Waits until there is something to do for [`Channel::pump`]. Cancel-safe.
    pub(crate) async fn ready(&self) {
        let unwritten = !self.state.borrow().unwritten.is_empty();
        // An error of these comes again, and is seen, when reading.
        tokio::select! {
            _ = self.stream.readable() => {}
            _ = self.output.readable(), if self.output_open.get() => {}
            _ = self.stream.writable(), if unwritten => {}
            () = self.unwritten.notified(), if !unwritten => {}
        }
    }

    /// Writes what is left, reads what has come. Output that was written before an answer is taken before it.
    ///
    /// # Errors
    /// [`Lost`] once all that the executor said was given.
    pub(crate) fn pump(&self) -> Result<Option<Answer>, Lost> {
        let mut state = self.state.borrow_mut();
        self.write(&mut state);
        let mut closed = false;
        loop {
            let given = state.given;
            if let Some(answer) = decode(&mut state.received, given.as_ref())? {
                state.given = None;
                self.take_output(&mut state, Asked::Runtime);
                return Ok(Some(answer));
            }
            if closed {
                return Err(Lost);
            }
            if state.received.capacity() == state.received.len() {
                state.received.reserve(16 * 1024);
            }
            match self.read(&mut state.received) {
                Ok(0) => closed = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => closed = true,
            }
        }
        self.take_output(&mut state, Asked::Runtime);
        Ok(None)
    }

    /// From here on all is read that is there.
    pub(crate) fn set_ended(&self) {
        self.ended.set(true);
    }

    fn read(&self, received: &mut BytesMut) -> io::Result<usize> {
        if !self.ended.get() {
            return self.stream.try_read_buf(received);
        }
        let mut buffer = [0; 16 * 1024];
        let count = nix::unistd::read(&self.stream, &mut buffer)?;
        received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn take_output(&self, state: &mut State, asked: Asked) {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        while self.output_open.get() && taken < OUTPUT_AT_ONCE {
            let read = match asked {
                Asked::Runtime if !self.ended.get() => self.output.try_read(&mut buffer),
                Asked::Runtime | Asked::System => nix::unistd::read(&self.output, &mut buffer).map_err(io::Error::from),
            };
            match read {
                Ok(0) => self.output_open.set(false),
                Ok(count) => {
                    taken += count;
                    state.output.take(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output_open.set(false),
            }
        }
    }

    /// What the task printed last.
    pub(crate) fn last_lines(&self) -> String {
        let mut state = self.state.borrow_mut();
        self.take_output(&mut state, Asked::Runtime);
        state.output.last_lines()
    }
}

/// The next answer, if it is whole. One to another task than the one that was `given` is no answer: who wrote it might
/// write to any other, too.
fn decode(received: &mut BytesMut, given: Option<&[u8; TASK]>) -> Result<Option<Answer>, Lost> {
    if received.len() < ANSWER {
        return Ok(None);
    }
    let mut head = &received[..ANSWER];
    let length = head.get_u32() as usize;
    let outcome = match head.get_u8() {
        0 => Outcome::Success,
        1 => Outcome::Raised,
        2 => Outcome::TooLarge,
        3 => Outcome::NotATask,
        _ => return Err(Lost),
    };
    let run_time_ns = head.get_u64();
    if given.is_none_or(|task| head != task) {
        return Err(Lost);
    }
    if length > Limits::TRUSTED.payload {
        return Err(Lost);
    }
    if received.len() < ANSWER + length {
        let missing = ANSWER + length - received.len();
        received.reserve(missing);
        return Ok(None);
    }
    received.advance(ANSWER);
    let body = if length <= COPIED_MAX {
        let body = Bytes::copy_from_slice(&received[..length]);
        received.advance(length);
        body
    } else {
        received.split_to(length).freeze()
    };
    Ok(Some(Answer {
        outcome,
        run_time_ns,
        body,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: [u8; TASK] = [b'7'; TASK];

    fn answer(length: u32, outcome: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u32(length);
        bytes.put_u8(outcome);
        bytes.put_u64(5);
        bytes.put_slice(&GIVEN);
        bytes.put_slice(body);
        bytes
    }

    #[test]
    fn an_answer_is_read_whole() {
        let mut received = answer(3, 1, b"abc");
        let expected = Answer {
            outcome: Outcome::Raised,
            run_time_ns: 5,
            body: Bytes::from_static(b"abc"),
        };
        let whole = received.clone();
        for end in 0..whole.len() {
            assert_eq!(decode(&mut BytesMut::from(&whole[..end]), Some(&GIVEN)).unwrap(), None);
        }
        assert_eq!(decode(&mut received, Some(&GIVEN)).unwrap(), Some(expected));
        assert!(received.is_empty());
    }

    #[test]
    fn what_is_no_answer_is_refused_before_anything_is_allocated_for_it() {
        assert!(decode(&mut answer(3, 9, b"abc"), Some(&GIVEN)).is_err());
        let mut received = answer(u32::MAX, 0, b"");
        assert!(decode(&mut received, Some(&GIVEN)).is_err());
        assert!(received.capacity() < 1024);
    }

    #[test]
    fn an_answer_to_another_task_or_to_none_is_refused() {
        assert!(decode(&mut answer(0, 0, b""), Some(&GIVEN)).is_ok());
        assert!(decode(&mut answer(0, 0, b""), Some(&[b'8'; TASK])).is_err());
        assert!(decode(&mut answer(0, 0, b""), None).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let mut seed = 1u64;
        for _ in 0..10_000 {
            let mut bytes = BytesMut::new();
            for _ in 0..40 {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                bytes.put_u8(u8::try_from(seed >> 56).unwrap());
            }
            while let Ok(Some(_)) = decode(&mut bytes, Some(&[0; TASK])) {}
        }
    }
}
