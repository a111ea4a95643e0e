"""Scenarios of SIPp: a phone that calls and speaks, and one that answers, to be heard by way of a gateway."""

_REQUEST = """
  <send>
    <![CDATA[

      {method} sip:callee@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: caller <sip:caller@[local_ip]:[local_port]>;tag=[pid]-[call_number]
      To: callee <sip:callee@[remote_ip]:[remote_port]>{tag}
      Call-ID: [call_id]
      CSeq: {number} {method}
      Contact: sip:caller@[local_ip]:[local_port]
      Max-Forwards: 70
      {rest}
    ]]>
  </send>
"""
_RESPONSE = """
  <send>
    <![CDATA[

      SIP/2.0 {status}
      [last_Via:]
      [last_From:]
      [last_To:]{tag}
      [last_Call-ID:]
      [last_CSeq:]
      Contact: <sip:[local_ip]:[local_port];transport=[transport]>
      {rest}
    ]]>
  </send>
"""
_SPEECH = """Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=someone 1 1 IN IP4 [local_ip]
      s=-
      c=IN IP4 {address}
      t=0 0
      m=audio {port} RTP/AVP 0
      a=rtpmap:0 PCMU/8000
"""
_NOTHING = "Content-Length: 0\n"
_SCENARIO = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">{steps}</scenario>\n'

_HIS_TAG, _MY_TAG = "[peer_tag_param]", ";tag=[pid]-[call_number]"


def caller(audio: str, milliseconds: int) -> str:
    """Call, play a file of PCMU once it is answered, and hang up after a while."""
    offer = _SPEECH.format(address="[media_ip]", port="[rtpstream_audio_port]")
    steps = [
        _REQUEST.format(method="INVITE", number=1, tag="", rest=offer),
        '<recv response="180"/><recv response="200"/>',
        _REQUEST.format(method="ACK", number=1, tag=_HIS_TAG, rest=_NOTHING),
        f'<nop><action><exec rtp_stream="{audio},1,0,PCMU/8000"/></action></nop>',
        f'<pause milliseconds="{milliseconds}"/>',
        _REQUEST.format(method="BYE", number=2, tag=_HIS_TAG, rest=_NOTHING),
        '<recv response="200"/>',
    ]
    return _SCENARIO.format(name="caller", steps="".join(steps))


def callee() -> str:
    """Answer, and want to be spoken to at the gateway: a phone behind one is told its address."""
    answer = _SPEECH.format(address="[gateway]", port="[gateway_port]")
    steps = [
        '<recv request="INVITE"/>',
        _RESPONSE.format(status="180 Ringing", tag=_MY_TAG, rest=_NOTHING),
        _RESPONSE.format(status="200 OK", tag=_MY_TAG, rest=answer),
        '<recv request="ACK"/><recv request="BYE"/>',
        _RESPONSE.format(status="200 OK", tag="", rest=_NOTHING),
    ]
    return _SCENARIO.format(name="callee", steps="".join(steps))
