"""Towns that do not exist: what an article says of one, and what can be asked about it."""

from __future__ import annotations

from random import Random

BEGINNINGS = ("Alder", "Bram", "Calder", "Dun", "Elms", "Fern", "Glen", "Hart", "Ivy", "Kel", "Lang", "Marl", "Nor",
              "Oak", "Pen", "Quarr", "Raven", "Stan", "Thorn", "Ux", "Wex", "Yar")  # fmt: skip
ENDINGS = ("bridge", "bury", "by", "dale", "field", "ford", "ham", "haven", "mouth", "stead", "ton", "wick", "worth")
FIRST_NAMES = ("Ada", "Bruno", "Clara", "Dmitri", "Esther", "Farid", "Greta", "Hugo", "Inés", "Jonas", "Keiko", "Leila",
               "Marek", "Nadia", "Oskar", "Priya", "René", "Sofia", "Tomás", "Zoë")  # fmt: skip
LAST_NAMES = ("Abbott", "Barrow", "Castro", "Dahl", "Ekström", "Fontaine", "Grünwald", "Hollis", "Ivanov", "Jensen",
              "Kovács", "Lindqvist", "Moreau", "Novak", "Okafor", "Petrov", "Quinn", "Rossi", "Silva")  # fmt: skip
RIVERS = ("Ash", "Brue", "Cray", "Dove", "Esk", "Fal", "Greet", "Lune", "Mease", "Nidd", "Rea", "Severn", "Tamar")
GOODS = ("blue glass", "canal boats", "church bells", "hard cheese", "leather gloves", "paper kites", "pipe organs",
         "plum brandy", "salted butter", "silk ribbons", "stone lions", "wool blankets")  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
BUILDINGS = ("clock tower", "covered market", "grain store", "old lighthouse", "opera house", "railway station",
             "stone bridge", "town library", "water mill")  # fmt: skip
FESTIVALS = ("lantern walk", "goose fair", "boat race", "bread market", "harvest dance", "kite day")

FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "year": (
        ("{town} was founded in {year}.", "In {year}, fishermen founded {town}.", "Its charter dates from {year}."),
        ("When was {town} founded?", "In which year was {town} founded?", "What year does the charter of {town} have?"),
    ),
    "mayor": (
        ("The mayor is {mayor}.", "Since the election {mayor} has been mayor.", "{mayor} was elected mayor twice."),
        ("Who is the mayor of {town}?", "Who was elected mayor?", "What is the name of the mayor?"),
    ),
    "river": (
        ("It lies on the river {river}.", "It stands where the {river} bends.", "The {river} flows past its walls."),
        ("On which river does {town} lie?", "Which river flows past {town}?", "What is the river called?"),
    ),
    "people": (
        ("It has {people} inhabitants.", "At the last count it had {people} people.", "Its population is {people}."),
        ("How many people live in {town}?", "What is the population of {town}?", "How many inhabitants are there?"),
    ),
    "goods": (
        ("The town is known for its {goods}.", "For centuries it has made {goods}.", "It still sells {goods}."),
        ("What is {town} known for?", "What is made in {town}?", "What does the town sell?"),
    ),
    "month": (
        ("Every {month} has a {festival}.", "The {festival} takes place in {month}.", "In {month} is the {festival}."),
        ("In which month is the {festival}?", "When does the {festival} take place?", "When is the {festival} held?"),
    ),
    "architect": (
        ("The {building} was designed by {architect}.", "{architect} drew the plans of the {building}."),
        ("Who designed the {building}?", "Who drew the plans of the {building}?"),
    ),
    "burned": (
        ("A fire destroyed the {building} in {burned}.", "The {building} burned down in {burned}."),
        ("When did the {building} burn down?", "In which year was the {building} destroyed by fire?"),
    ),
}  # fmt: skip
"""What is asked for -> how an article says it, how one asks."""

FILLERS = ("Few tourists come in winter.", "The roads around it are narrow.", "Most houses are built of grey stone.",
           "A small museum tells its history.", "Its café opens late.", "The market square is paved.")  # fmt: skip
NUM_FACTS, NUM_FILLERS = 4, 1


class Town:
    """A town: its article and the questions on it.

    Args:
        random: Decides everything.
    """

    def __init__(self, random: Random) -> None:
        self.name = random.choice(BEGINNINGS) + random.choice(ENDINGS)
        words = self._words(random)
        facts = random.sample(sorted(FACTS), NUM_FACTS)
        said = [random.choice(FACTS[fact][0]).format(**words) for fact in facts]
        sentences = [*said, *random.sample(FILLERS, NUM_FILLERS)]
        random.shuffle(sentences)
        self.text = " ".join(sentences)
        self.questions = [(self._asked(random, fact, words), words[fact]) for fact in facts]
        """Question and answer."""
        self.unanswerable = [self._asked(random, fact, words) for fact in sorted(FACTS.keys() - set(facts))]
        """Questions on what the article does not say."""

    def _words(self, random: Random) -> dict[str, str]:
        """Return what fills the sentences; no value is in another, so that each stands in the article once."""
        years = random.sample(range(1200, 1990), 2)
        names = [f"{first} {last}" for first, last in zip(
            random.sample(FIRST_NAMES, 2), random.sample(LAST_NAMES, 2), strict=True)]  # fmt: skip
        return {
            "town": self.name,
            "year": str(years[0]),
            "burned": str(years[1]),
            "mayor": names[0],
            "architect": names[1],
            "river": random.choice(RIVERS),
            "people": f"{random.randrange(2, 90)},{random.randrange(1000):03d}",
            "goods": random.choice(GOODS),
            "month": random.choice(MONTHS),
            "building": random.choice(BUILDINGS),
            "festival": random.choice(FESTIVALS),
        }

    def _asked(self, random: Random, fact: str, words: dict[str, str]) -> str:
        return random.choice(FACTS[fact][1]).format(**words)
