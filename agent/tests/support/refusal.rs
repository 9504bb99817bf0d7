//! A way to the broker on which nobody may ask about a queue: RabbitMQ itself lets everyone, the service may not.

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

const METHOD: u8 = 1;
const QUEUE_DECLARE: [u8; 4] = [0, 50, 0, 10];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];

/// One frame of AMQP 0-9-1 as it is on the wire.
struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

impl Frame {
    async fn read(from: &mut OwnedReadHalf) -> std::io::Result<Self> {
        let (kind, channel, size) = (from.read_u8().await?, from.read_u16().await?, from.read_u32().await?);
        let mut payload = vec![0; size as usize];
        from.read_exact(&mut payload).await?;
        let _end = from.read_u8().await?;
        Ok(Self { kind, channel, payload })
    }

    async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut bytes = vec![self.kind];
        bytes.extend(self.channel.to_be_bytes());
        bytes.extend(u32::try_from(self.payload.len()).unwrap().to_be_bytes());
        bytes.extend(&self.payload);
        bytes.push(0xCE);
        to.write_all(&bytes).await
    }

    fn is(&self, method: [u8; 4]) -> bool {
        self.kind == METHOD && self.payload.starts_with(&method)
    }

    /// Whether it declares this queue.
    fn declares(&self, queue: &str) -> bool {
        self.is(QUEUE_DECLARE) && self.payload.get(7..7 + queue.len()) == Some(queue.as_bytes())
    }

    fn close(channel: u16, code: u16, why: &str) -> Self {
        let mut payload = CHANNEL_CLOSE.to_vec();
        payload.extend(code.to_be_bytes());
        payload.push(u8::try_from(why.len()).unwrap());
        payload.extend(why.as_bytes());
        payload.extend(QUEUE_DECLARE);
        Self {
            kind: METHOD,
            channel,
            payload,
        }
    }
}

/// The URL of a way to the broker at `url` that answers each declaration of a queue as a broker that refuses it, and a
/// receiver that has a word for each.
pub(crate) async fn refusing(url: &str, queue: String) -> (String, mpsc::UnboundedReceiver<()>) {
    let mut there = url::Url::parse(url).unwrap();
    let target = format!("{}:{}", there.host_str().unwrap(), there.port().unwrap_or(5672));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    there.set_host(Some("127.0.0.1")).unwrap();
    there.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let (refusal, refusals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (target, queue, refusal) = (target.clone(), queue.clone(), refusal.clone());
            tokio::spawn(async move { serve(client, &target, &queue, &refusal).await });
        }
    });
    (there.to_string(), refusals)
}

async fn serve(
    client: TcpStream,
    target: &str,
    queue: &str,
    refusal: &mpsc::UnboundedSender<()>,
) -> std::io::Result<()> {
    let (mut client, to_client) = client.into_split();
    let (mut broker, mut to_broker) = TcpStream::connect(target).await?.into_split();
    let to_client = Mutex::new(to_client);
    // Channels that the client takes for closed by the broker, and the broker for closed by the client.
    let (closing_client, closing_broker) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let up = async {
        let mut header = [0; 8];
        client.read_exact(&mut header).await?;
        to_broker.write_all(&header).await?;
        loop {
            let frame = Frame::read(&mut client).await?;
            if frame.declares(queue) {
                closing_client.lock().await.push(frame.channel);
                closing_broker.lock().await.push(frame.channel);
                let refused = Frame::close(frame.channel, 403, "ACCESS_REFUSED - it is not yours");
                refused.write(&mut *to_client.lock().await).await?;
                Frame::close(frame.channel, 200, "").write(&mut to_broker).await?;
                let _ = refusal.send(());
            } else if !(frame.is(CHANNEL_CLOSE_OK) && take(&closing_client, frame.channel).await) {
                frame.write(&mut to_broker).await?;
            }
        }
    };
    let down = async {
        loop {
            let frame = Frame::read(&mut broker).await?;
            if !(frame.is(CHANNEL_CLOSE_OK) && take(&closing_broker, frame.channel).await) {
                frame.write(&mut *to_client.lock().await).await?;
            }
        }
    };
    tokio::select! { ended = up => ended, ended = down => ended }
}

async fn take(channels: &Mutex<Vec<u16>>, channel: u16) -> bool {
    let mut channels = channels.lock().await;
    let found = channels.iter().position(|open| *open == channel);
    if let Some(index) = found {
        channels.remove(index);
    }
    found.is_some()
}
