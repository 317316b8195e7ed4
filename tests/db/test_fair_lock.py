"""The fair lock: one holder, first come first served, also with timeouts."""

import threading

from related_images.db.sqlite import FairLock

LONG, SHORT = 30.0, 0.01


def test_a_free_lock_is_acquired_at_once() -> None:
    with FairLock().turn(0) as came:
        assert came


def test_a_timeout_does_not_block_the_next_thread() -> None:
    turns = FairLock()
    with turns.turn(LONG), turns.turn(SHORT) as came:
        assert not came
    with turns.turn(0) as came:
        assert came


def test_the_lock_is_acquired_in_the_order_of_requests() -> None:
    turns, served = FairLock(), []

    def take(number: int) -> None:
        with turns.turn(LONG) as came:
            served.append((number, came))

    with turns.turn(LONG):
        threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            while len(turns._waiting) < waiting:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(LONG)
    assert served == [(number, True) for number in range(5)]


def test_one_thread_holds_the_lock_while_others_time_out() -> None:
    turns, inside, most, done = FairLock(), 0, 0, []

    def take(seconds: float) -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns.turn(seconds) as came:
                if came:
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
                    done.append(seconds)

    threads = [threading.Thread(target=take, args=(s,)) for s in (LONG, LONG, 0.0, 0.0001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert most == 1
    assert done.count(LONG) == 400
    with turns.turn(0) as came:
        assert came
