"""cloudflared or ngrok, by the name it is called: says what they say, and lets the world in.

The world is this machine: it listens at `localhost` and hands connections on. With TUNNEL_PORT it
listens there, else anywhere. While TUNNEL_CUT exists as a file it breaks each connection off.
"""

import asyncio
import json
import os
import sys
from pathlib import Path


def cut():
    return Path(os.environ.get("TUNNEL_CUT", "/nonexistent")).exists()


async def hand(reader, writer):
    try:
        while data := await reader.read(65536):
            if cut():
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def serve(port):
    async def meet(reader, writer):
        if cut():
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(hand(reader, back), hand(there, writer))

    return meet


def said(text):
    print("2026-11-21T12:00:00Z INF " + text, file=sys.stderr, flush=True)


async def main():
    name, args = Path(sys.argv[0]).name, sys.argv[1:]
    target = args[args.index("--url") + 1] if "--url" in args and name == "cloudflared" else ""
    target = args[1] if name == "ngrok" else target
    port = int((target or os.environ.get("TUNNEL_TARGET", ":0")).rpartition(":")[2])
    server = await asyncio.start_server(
        serve(port), "127.0.0.1", int(os.environ.get("TUNNEL_PORT", "0"))
    )
    here = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    if name == "ngrok":
        if os.environ.get("NGROK_AUTHTOKEN", "") != "ngrok-secret-0123456789":
            line = {
                "err": "authentication failed: ERR_NGROK_4018",
                "lvl": "eror",
                "msg": "failed to reconnect session",
            }
            print(json.dumps(line), flush=True)
            sys.exit(1)
        print(json.dumps({"lvl": "info", "msg": "no configuration paths supplied"}), flush=True)
        line = {
            "addr": target,
            "lvl": "info",
            "msg": "started tunnel",
            "obj": "tunnels",
            "url": here,
        }
        print(json.dumps(line), flush=True)
    elif target:
        said("Thank you for trying Cloudflare Tunnel. See https://developers.cloudflare.com/terms")
        said("Requesting new quick Tunnel on trycloudflare.com...")
        said("+" + "-" * 92 + "+")
        said(
            "|  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |"
        )
        said(f"|  {here:<90}|")
        said("+" + "-" * 92 + "+")
        said(
            "Registered tunnel connection connIndex=0 connection=1 event=0 ip=198.41.192.57 location=lis01 protocol=quic"
        )
    else:
        if os.environ.get("TUNNEL_TOKEN", "") != "tunnel-secret-0123456789":
            print("Provided Tunnel token is not valid.", file=sys.stderr)
            sys.exit(255)
        said("Starting tunnel tunnelID=0000")
        said(
            "Registered tunnel connection connIndex=0 connection=1 event=0 ip=198.41.192.57 location=lis01 protocol=quic"
        )
    await server.serve_forever()


asyncio.run(main())
