"""Fifty prompts of an ordinary day, as people type them: nothing in them says how long to be."""

_MINUTES = """\
Summarize these notes of our meeting:

- Anna: the new supplier is 8 % cheaper, but delivers only on Mondays
- Ben: the warehouse is full until the end of March
- Clara: customers complain that the blue chairs are out of stock
- decided: order 200 blue chairs from the old supplier, ask the new one for Thursdays
- next meeting: 12 March, 10 o'clock"""

_ARTICLE = """\
Summarize this article in a few sentences:

Bees are among the most important pollinators on Earth. Of the hundred crops that feed most of the
world, more than seventy are pollinated by them. In the last decades beekeepers in Europe and North
America have lost a large part of their colonies each winter. Scientists name several causes:
pesticides, a mite that spreads viruses, fewer wild flowers, and a warmer climate that brings plants to
bloom before the bees fly. Some cities have begun to plant flower strips along their roads and to forbid
certain pesticides. Where that was done, the number of wild bees has risen within three years."""

_LETTER = """\
Correct the spelling and grammar of this letter:

Dear Mr Miller,
thank you for you're letter of last weak. I has read it with much intrest. Unfortunately we can not
except the offer, because the prize are to high for us.
Yours sincerly
Tom"""

_CODE = """\
What does this function do?

def f(words):
    counts = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=counts.get, reverse=True)[:3]"""

_REVIEW = """\
Is this review positive or negative, and why?

"The hotel lies right by the sea and the staff was friendly. Our room, however, was dirty, the shower
was cold and at night the bar below was so loud that we could not sleep. We will not come back." """

_FORM = """\
Write a short bio from these facts.
Name: Maria Lopez
Job: veterinarian
City: Seville
Hobbies: climbing, old radios
Pets: two cats, one parrot"""

PROMPTS = (
    # recipes and the household
    "How do I make pancakes?",
    "Give me a recipe for a simple tomato soup.",
    "What can I cook with potatoes, eggs and onions?",
    "How do I get a coffee stain out of a shirt?",
    "How long do I boil an egg?",
    # mails and letters
    "Write an email to my boss asking for a day off on Friday.",
    "Write a thank-you note to my neighbour who watered my plants.",
    "Write a polite reply to a customer whose parcel is late.",
    "Write an invitation to a birthday party on Saturday at 3 pm.",
    "Write a short cover letter for a job in a bookshop.",
    # explanations
    "Why is the sky blue?",
    "Explain to a child how a rainbow is made.",
    "What is inflation?",
    "How does a refrigerator work?",
    "What is the difference between a virus and a bacterium?",
    "Explain what machine learning is in simple words.",
    "Why do we dream?",
    "What causes the seasons?",
    # lists and plans
    "List ten ideas for a rainy day with children.",
    "What should I pack for a week at the beach?",
    "Name five European capitals.",
    "Give me a weekly workout plan for beginners.",
    "What are the pros and cons of working from home?",
    "Suggest some names for a black cat.",
    "Plan a two-day trip to Rome.",
    # code
    "Write a Python function that checks whether a word is a palindrome.",
    "How do I reverse a list in Python?",
    "Write an SQL query that counts the orders of each customer.",
    "What is the difference between a list and a tuple in Python?",
    _CODE,
    # translations and language
    "Translate to French: Good morning, how are you today?",
    "Translate to Spanish: Where is the train station?",
    "What does 'bon appetit' mean?",
    "Give me three synonyms for 'happy'.",
    _LETTER,
    # small talk
    "Hi!",
    "How are you today?",
    "Tell me a joke.",
    "I feel a bit sad today.",
    "What is your favourite book?",
    "Thanks, that was helpful!",
    # summaries and texts
    _MINUTES,
    _ARTICLE,
    _REVIEW,
    _FORM,
    # stories and the rest
    "Write a short story about a lighthouse keeper.",
    "Write a poem about autumn.",
    "What is 17 times 23?",
    "Who wrote Romeo and Juliet?",
    "What is the capital of France?",
)
