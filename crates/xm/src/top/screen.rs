//! The full screen of `top`.

use std::io::{Stdout, stdin, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use api::Daemon;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::table::{self, Sample, View};
use super::{LOOK, PAUSES, look};
use crate::error::Error;
use crate::output::colours_on;
use crate::signals::Signals;
use crate::terminal::RawTerminal;

/// The line with the keys.
const KEYS: &str =
    "q quit  d delay  s sort  n networks  b disks  v vCPUs  f full names  arrows scroll";
/// Longest number that is typed.
const LONGEST_NUMBER: usize = 8;

/// What is on the screen.
struct State {
    view: View,
    delay: Duration,
    scroll: usize,
    sideways: usize,
    /// What was typed after the key for the delay.
    typed: Option<String>,
    over: bool,
}

/// Shows the screen until it is left; gives the signal that ended it, if one did.
pub(super) fn run(
    daemon: &Daemon,
    view: View,
    delay: Duration,
    iterations: u64,
    signals: &mut Signals,
) -> Result<Option<i32>, Error> {
    let input = stdin();
    let _raw = RawTerminal::enter_screen(input.as_fd())?;
    let mut screen = Screen::enter()?;
    let mut state = State { view, delay, scroll: 0, sideways: 0, typed: None, over: false };
    let mut before: Option<Sample> = None;
    let mut done = 0;
    loop {
        let now = look(daemon)?;
        let next = Instant::now() + state.delay;
        done += 1;
        loop {
            screen.draw(&state, &now, before.as_ref())?;
            match until(next, &mut state, signals)? {
                Turn::Again => {}
                Turn::Look => break,
                Turn::Signal(signal) => return Ok(Some(signal)),
            }
            if state.over {
                return Ok(None);
            }
        }
        if done == iterations {
            return Ok(None);
        }
        before = Some(now);
    }
}

/// What comes next.
enum Turn {
    /// Something on the screen changed.
    Again,
    /// Time for the next look.
    Look,
    /// The program is to end.
    Signal(i32),
}

/// Waits for keys. False if nobody is at the terminal's other end any more: then it is always
/// readable and never gives anything, which crossterm would read for ever.
fn await_keys(terminal: &impl AsFd, longest: Duration) -> bool {
    let mut look = [PollFd::new(terminal, PollFlags::IN)];
    let longest = Timespec::try_from(longest).unwrap_or_default();
    let _until_then = poll(&mut look, Some(&longest));
    !look.iter().any(|look| look.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

fn until(next: Instant, state: &mut State, signals: &mut Signals) -> Result<Turn, Error> {
    loop {
        if let Some(signal) = signals.ending() {
            return Ok(Turn::Signal(signal));
        }
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Turn::Look);
        }
        if !await_keys(&stdin(), left.min(LOOK)) {
            state.over = true;
            return Ok(Turn::Again);
        }
        // Changes of its size come another way.
        if !event::poll(Duration::ZERO).map_err(Error::Output)? {
            continue;
        }
        match event::read().map_err(Error::Output)? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                state.press(key);
                return Ok(Turn::Again);
            }
            Event::Resize(..) => return Ok(Turn::Again),
            _ => {}
        }
    }
}

impl State {
    fn press(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c')) {
            self.over = true;
        } else if self.typed.is_some() {
            self.type_delay(key.code);
        } else {
            self.command(key.code);
        }
    }

    fn command(&mut self, key: KeyCode) {
        let view = &mut self.view;
        match key {
            KeyCode::Esc => self.over = true,
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Left => self.sideways = self.sideways.saturating_sub(8),
            KeyCode::Right => self.sideways = self.sideways.saturating_add(8),
            KeyCode::Home => (self.scroll, self.sideways) = (0, 0),
            KeyCode::Char(letter) => match letter.to_ascii_lowercase() {
                'q' => self.over = true,
                'd' => self.typed = Some(String::new()),
                's' => view.sort = view.sort.next(),
                'n' => view.networks = !view.networks,
                'b' | 'x' => view.disks = !view.disks,
                'v' => view.vcpus = !view.vcpus,
                'f' => view.full_names = !view.full_names,
                _ => {}
            },
            _ => {}
        }
    }

    fn type_delay(&mut self, key: KeyCode) {
        let Some(typed) = &mut self.typed else { return };
        match key {
            KeyCode::Esc => self.typed = None,
            KeyCode::Backspace => _ = typed.pop(),
            KeyCode::Char(c)
                if (c.is_ascii_digit() || c == '.') && typed.len() < LONGEST_NUMBER =>
            {
                typed.push(c);
            }
            KeyCode::Enter => {
                if let Some(seconds) = typed.parse().ok().filter(|s| PAUSES.contains(s)) {
                    self.delay = Duration::from_secs_f64(seconds);
                }
                self.typed = None;
            }
            _ => {}
        }
    }

    /// The last line.
    fn foot(&self) -> String {
        match &self.typed {
            Some(typed) => {
                format!("Seconds between looks (now {}): {typed}_", self.delay.as_secs_f64())
            }
            None => format!("{KEYS}   by {}", self.view.sort.word()),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>, now: &Sample, before: Option<&Sample>) {
        let [top, head, body, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let clock = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let summary = table::summary(now, &clock);
        frame.render_widget(Paragraph::new(summary.join("\n")), top);
        let styled = |style: Modifier| {
            if colours_on(&stdout()) { Style::new().add_modifier(style) } else { Style::new() }
        };
        let sideways = u16::try_from(self.sideways).unwrap_or(u16::MAX);
        let titles = Paragraph::new(table::header()).style(styled(Modifier::REVERSED));
        frame.render_widget(titles.scroll((0, sideways)), head);
        let lines = table::lines(&self.view, now, before);
        let bold = styled(Modifier::BOLD);
        let lines: Vec<Line<'_>> = lines
            .into_iter()
            .map(
                |line| {
                    if line.is_domain { Line::styled(line.text, bold) } else { line.text.into() }
                },
            )
            .collect();
        self.scroll = self.scroll.min(lines.len().saturating_sub(1));
        let down = u16::try_from(self.scroll).unwrap_or(u16::MAX);
        frame.render_widget(Paragraph::new(Text::from(lines)).scroll((down, sideways)), body);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }
}

/// The alternate screen; left when it is dropped.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn enter() -> Result<Self, Error> {
        execute!(stdout(), EnterAlternateScreen).map_err(Error::Output)?;
        // Some terminals, serial lines say, do not know their size.
        let viewport = match ratatui::crossterm::terminal::size() {
            Ok((columns, rows)) if columns > 0 && rows > 0 => Viewport::Fullscreen,
            _ => Viewport::Fixed(Rect::new(0, 0, 80, 24)),
        };
        let options = TerminalOptions { viewport };
        match Terminal::with_options(CrosstermBackend::new(stdout()), options) {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                drop(execute!(stdout(), LeaveAlternateScreen));
                Err(Error::Output(error))
            }
        }
    }

    fn draw(&mut self, state: &State, now: &Sample, before: Option<&Sample>) -> Result<(), Error> {
        let mut state = State { typed: state.typed.clone(), ..*state };
        self.0.draw(|frame| state.draw(frame, now, before)).map_err(Error::Output)?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(execute!(stdout(), LeaveAlternateScreen, Show));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{VIEW, domain, sample};
    use super::*;
    use ratatui::backend::TestBackend;

    fn state() -> State {
        let delay = Duration::from_secs(3);
        State { view: VIEW, delay, scroll: 0, sideways: 0, typed: None, over: false }
    }

    fn screen(state: &mut State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(60, 8)).unwrap();
        let now = sample(Instant::now(), vec![domain(0, "Domain-0", 5.0), domain(7, "serv1", 1.0)]);
        terminal.draw(|frame| state.draw(frame, &now, None)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_has_summary_titles_domains_and_keys() {
        let mut state = state();
        let text = screen(&mut state);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("2 domains: 0 running, 2 blocked"), "{text}");
        assert!(lines[3].contains("NAME  STATE   CPU(sec)"), "{text}");
        assert!(lines[5].contains("     serv1 --b---          1"), "{text}");
        assert!(lines[7].contains("q quit"), "{text}");
        state.press(KeyCode::Down.into());
        assert!(screen(&mut state).lines().nth(4).unwrap().contains("serv1"));
        for _ in 0..100 {
            state.press(KeyCode::Down.into());
        }
        assert!(screen(&mut state).contains("serv1"), "the last line stays");
    }

    #[test]
    fn keys_do_what_xentops_do() {
        let mut state = state();
        for key in ['n', 'B', 'v', 's'] {
            state.press(KeyCode::Char(key).into());
        }
        assert!(state.view.networks && state.view.disks && state.view.vcpus);
        assert_eq!(state.view.sort.word(), "name");
        for key in ['d', '0', '.', '5', 'q'] {
            state.press(KeyCode::Char(key).into());
        }
        assert!(state.foot().contains("0.5_") && !state.over);
        state.press(KeyCode::Enter.into());
        assert_eq!(state.delay, Duration::from_millis(500));
        for key in ['d', '0'] {
            state.press(KeyCode::Char(key).into());
        }
        state.press(KeyCode::Enter.into());
        assert_eq!(state.delay, Duration::from_millis(500), "zero is no delay");
        state.press(KeyCode::Char('q').into());
        assert!(state.over);
    }
}
