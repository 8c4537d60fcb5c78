"""What is said in a made-up web shop: questions with an answer that follows from them, and small talk."""

from __future__ import annotations

from random import Random

PRODUCTS = ("lamp", "chair", "kettle", "desk", "mirror", "carpet", "clock", "pillow", "shelf", "blanket")
COLOURS = ("red", "blue", "green", "black", "white", "yellow")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")

EXCHANGES = (
    (
        ("Do you sell {colour} {product}s?", "Have you got a {colour} {product}?", "I need a {colour} {product}."),
        "Yes, we have {colour} {product}s.",
    ),
    (
        ("My {product} arrived broken.", "The {product} I ordered has a crack.", "The {product} came in pieces!"),
        "I am sorry. We will send you a new {product}.",
    ),
    (
        ("I want to return the {product}.", "How do I send the {product} back?", "The {product} is too small for me."),
        "You can return the {product} within thirty days.",
    ),
    (
        ("Where is my {product}?", "My {product} has not arrived yet.", "When does the {product} come?"),
        "Your {product} will arrive on {day}.",
    ),
    (
        ("Can you deliver on {day}?", "Is {day} possible for the delivery?", "I am only at home on {day}."),
        "Yes, we can deliver on {day}.",
    ),
    (
        ("My name is {name}.", "Hello, this is {name}.", "{name} here."),
        "Hello {name}, what can I do for you?",
    ),
    (("Thank you!", "Thanks, that is all.", "Great, thanks."), "You are welcome."),
    (("Can I pay by card?", "Do you take cards?", "Is paying by card fine?"), "Yes, you can pay by card."),
)  # fmt: skip
"""Ways to say something, and the one answer. The day on which a product arrives depends on the product."""

TASKS = (
    ("Name the product: {said}", "{product}"),
    ("Name the colour: I would like a {colour} {product}.", "{colour}"),
    ("Answer the customer: {said}", "{answer}"),
    ("Say it in capitals: {product}", "{PRODUCT}"),
    ("Write an order of a {colour} {product} for {name}.", "{name} orders a {colour} {product}."),
)


def exchange(random: Random) -> tuple[str, str]:
    """Return what a customer says and what the shop answers."""
    ways, answer = random.choice(EXCHANGES)
    words = _words(random)
    if "{product}" in answer:
        words["day"] = DAYS[PRODUCTS.index(words["product"]) % len(DAYS)]
    return random.choice(ways).format(**words), answer.format(**words)


def task(random: Random) -> tuple[str, str]:
    """Return an instruction and what it asks for."""
    asked, wanted = random.choice(TASKS)
    words = _words(random)
    with_product = [(ways, answer) for ways, answer in EXCHANGES if all("{product}" in way for way in ways)]
    ways, answer = random.choice(with_product)
    words["day"] = DAYS[PRODUCTS.index(words["product"]) % len(DAYS)]
    said, answered = random.choice(ways).format(**words), answer.format(**words)
    more = {**words, "said": said, "answer": answered, "PRODUCT": words["product"].upper()}
    return asked.format(**more), wanted.format(**more)


def _words(random: Random) -> dict[str, str]:
    lists = {"product": PRODUCTS, "colour": COLOURS, "day": DAYS, "name": NAMES}
    return {name: random.choice(values) for name, values in lists.items()}
