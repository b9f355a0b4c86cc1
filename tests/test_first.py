from provider import reply
def test_a(alice, provider):
    provider.default = reply("Hel", "lo ", "wörld 🎉")
    s = alice.create("Hi", model="claude-x")
    assert alice.turns(s)[1]["content"] == "Hello wörld 🎉"
    s = alice.create("Hi")
    assert alice.turns(s)[1]["content"] == "Hello wörld 🎉"
    print(alice.turns(s))
    with alice.stream("POST", "/sessions", {"content": "Hi"}) as st:
        print(list(st))
