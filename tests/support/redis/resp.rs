//! The part of Redis' protocol that tests need for their questions.

use std::fmt::Write as _;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resp {
    Text(String),
    Error(String),
    Integer(i64),
    None,
    List(Vec<Resp>),
}

impl Resp {
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("no integer: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            other => panic!("no list: {other:?}"),
        }
    }

    /// Returns the texts of a list.
    #[track_caller]
    pub(crate) fn texts(&self) -> Vec<String> {
        self.list().iter().map(|item| item.text().to_owned()).collect()
    }
}

/// Sends commands over a new connection and returns the answer to the last one.
pub(super) async fn ask(port: u16, commands: &[&[&str]]) -> io::Result<Resp> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let mut answer = Resp::None;
    for command in commands {
        let mut bytes = format!("*{}\r\n", command.len());
        for word in *command {
            write!(bytes, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        stream.write_all(bytes.as_bytes()).await?;
        answer = read(&mut stream).await?;
    }
    Ok(answer)
}

async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Resp> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    Ok(match (kind, rest) {
        ("+", text) => Resp::Text(text.to_owned()),
        ("-", text) => Resp::Error(text.to_owned()),
        (":", _) => Resp::Integer(number()?),
        ("$" | "*", "-1") => Resp::None,
        ("$", _) => {
            let mut bytes = vec![0; usize::try_from(number()? + 2).unwrap()];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(bytes.len() - 2);
            Resp::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        ("*", _) => {
            let mut items = Vec::new();
            for _ in 0..number()? {
                items.push(Box::pin(read(stream)).await?);
            }
            Resp::List(items)
        }
        _ => panic!("Redis said {line:?}"),
    })
}
