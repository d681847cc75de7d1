//! Templates that the platform documents, with words of our own.

use serde_json::{Value, json};

use super::super::ReplyContent;
use super::{media, pairs, sent, template};

fn assert_read(payload: &Value, text: &str, choices: &[(&str, &str)]) -> ReplyContent {
    let read = template(payload);
    assert_eq!(read.text, text, "{payload}");
    assert_eq!(pairs(&read), choices, "{payload}");
    read
}

#[test]
fn choices_follow_their_question() {
    let quick =
        |title: &str, payload: &str| json!({"content_type": "text", "title": title, "payload": payload});
    let replies = [quick("Tea", "tea_1"), quick("Coffee &amp; milk", "coffee"), json!("Water")];
    assert_read(
        &json!({"template_type": "quick_replies", "text": "What to drink? \n", "quick_replies": replies}),
        "What to drink?\nTea\nCoffee & milk\nWater",
        &[("Tea", "tea_1"), ("Coffee & milk", "coffee"), ("Water", "Water")],
    );
    assert_read(
        &json!({"template_type": "quick_replies_welcome", "text": "Hello!", "quick_replies": [
            {"content_type": "text", "title": "Balance", "value": "Balance", "payload": "get balance"}]}),
        "Hello!\nBalance",
        &[("Balance", "get balance")],
    );
    assert_read(
        &json!({"template_type": "dropdown_template", "heading": "Which currency?", "elements": [
            {"title": "Euro", "value": "EUR"}, {"title": "Yen", "value": "JPY"}]}),
        "Which currency?\nEuro\nYen",
        &[("Euro", "EUR"), ("Yen", "JPY")],
    );
    assert_read(
        &json!({"template_type": "radioOptionTemplate", "heading": "From which account?", "radioOptions": [
            {"title": "Savings", "value": "1234 5678", "postback": {"title": "Chosen", "value": "savings"}},
            {"title": "Current", "value": "current"}]}),
        "From which account?\nSavings – 1234 5678\nCurrent",
        &[("Savings", "savings"), ("Current", "current")],
    );
    assert_read(
        &json!({"template_type": "taskPickerTemplate", "tasks": [
            {"title": "Pay", "icon": "data:image/png;base64,AAAA", "postback": {"title": "t", "value": "pay now"}}]}),
        "Pay",
        &[("Pay", "pay now")],
    );
    assert_read(
        &json!({"template_type": "multi_select", "elements": [
            {"title": "Shirts", "value": "shirts"}, {"title": "Shoes", "value": "shoes"}],
            "buttons": [{"title": "Done", "type": "postback", "payload": "done"}]}),
        "Shirts\nShoes\nDone",
        &[("Shirts", "shirts"), ("Shoes", "shoes"), ("Done", "done")],
    );
    assert_read(
        &json!({"template_type": "advanced_multi_select", "heading": "Select items", "description": "Premium",
            "elements": [{"collectionTitle": "Cars", "collection": [
                {"title": "Audi", "description": "German", "value": "audi"}]}],
            "buttons": [{"title": "Done", "type": "postback", "payload": "done"}]}),
        "Select items\nPremium\nCars\nAudi – German\nDone",
        &[("Audi", "audi"), ("Done", "done")],
    );
}

#[test]
fn buttons_send_or_open() {
    let read = assert_read(
        &json!({"template_type": "button", "text": "What next?", "subText": "Choose below", "buttons": [
            {"type": "web_url", "title": "Website", "url": "https://a.example/?x=1&amp;y=2"},
            {"type": "phone_number", "title": "Call us", "payload": "+4930123"},
            {"type": "postback", "title": "Chat", "payload": "CHAT"},
            {"type": "postback", "title": "By value", "value": "V"},
            {"type": "postback", "title": "By title"}]}),
        "What next?\nChoose below\nWebsite: https://a.example/?x=1&y=2\nCall us: tel:+4930123\nChat\nBy value\nBy title",
        &[("Chat", "CHAT"), ("By value", "V"), ("By title", "By title")],
    );
    assert_eq!(
        media(&read),
        [("link", "https://a.example/?x=1&y=2", "Website"), ("link", "tel:+4930123", "Call us")]
    );
}

#[test]
fn action_that_sends_nothing_is_no_choice() {
    let read = assert_read(
        &json!({"template_type": "carousel", "elements": [
            {"title": "Figs", "subtitle": "Fresh", "default_action": {"type": "web_url", "url": ""},
             "buttons": [{"type": "postback", "title": "Buy", "payload": "buy", "value": "buy"}]},
            {"title": "Plums", "default_action": {"type": "postback"}},
            {"title": "Pears", "default_action": {}}]}),
        "Figs – Fresh\nBuy\nPlums\nPears",
        &[("Buy", "buy")],
    );
    assert_eq!(media(&read), []);
    let read = assert_read(
        &json!({"template_type": "button", "text": "Fill in the form", "buttons": [
            {"type": "url", "title": "Open"}, {"type": "web_url", "title": "Help", "url": ""}],
            "formData": {"formLink": "https://f.example/1"}}),
        "Fill in the form\nOpen\nHelp\nhttps://f.example/1",
        &[],
    );
    assert_eq!(media(&read), [("link", "https://f.example/1", "-")]);
}

#[test]
fn plain_words_are_items() {
    assert_read(
        &json!({"template_type": "list", "text": "Tips", "elements": ["Rest &amp; sleep", 2]}),
        "Tips\nRest & sleep\n2",
        &[],
    );
    assert_read(
        &json!({"template_type": "multi_select", "heading": "Pick", "elements": ["a", "b"], "buttons": ["Done"]}),
        "Pick\na\nb\nDone",
        &[("a", "a"), ("b", "b"), ("Done", "Done")],
    );
    assert_read(
        &json!({"template_type": "radioOptionTemplate", "heading": "Pick", "elements": [
            {"title": "One", "value": "1"}]}),
        "Pick\nOne",
        &[("One", "1")],
    );
}

#[test]
fn choices_of_odd_shapes_are_read() {
    assert_read(
        &json!({"template_type": "button", "text": "Pick", "buttons": [
            {"title": 5, "payload": 7.50}, {"title": "", "payload": "x"}, {"title": "Object", "payload": {"a": 1}},
            null, true, {}, {"title": "Twice"}, {"title": "Twice"}]}),
        "Pick\n5\nObject\nTwice\nTwice",
        &[("5", "7.5"), ("Object", r#"{"a":1}"#), ("Twice", "Twice")],
    );
}

#[test]
fn ratings_are_choices() {
    let feedback = |member: &str, list: Value| {
        json!({"template_type": "feedbackTemplate", "text": "Happy?", "view": "x", member: list,
            "messageTodisplay": "Glad you liked it"})
    };
    assert_read(
        &feedback("smileyArrays", json!([{"smileyId": 1, "value": "bad", "reviewText": "Very bad"}])),
        "Happy?\nVery bad",
        &[("Very bad", "bad")],
    );
    assert_read(
        &feedback(
            "numbersArrays",
            json!([{"numberId": 0, "value": "0", "color": "#f00"}, {"numberId": 1, "value": 1}]),
        ),
        "Happy?\n0\n1",
        &[("0", "0"), ("1", "1")],
    );
    assert_read(
        &json!({"template_type": "like_dislike"}),
        "Like\nDislike",
        &[("Like", "like"), ("Dislike", "dislike")],
    );
    assert_read(&feedback("starArrays", json!([{"starId": 5, "value": 5}])), "Happy?\n5", &[("5", "5")]);
    assert_read(
        &feedback("thumpsUpDownArrays", json!([{"thumpUpId": 0, "value": "no", "reviewText": "Unlikely"}])),
        "Happy?\nUnlikely",
        &[("Unlikely", "no")],
    );
}

#[test]
fn template_without_text_lists_its_elements() {
    let element = |title: &str| {
        json!({"title": title, "subtitle": "Fresh", "image_url": format!("https://i.example/{title}.png"),
            "default_action": {"type": "web_url", "url": format!("https://s.example/{title}")},
            "buttons": [{"type": "postback", "title": "Buy", "payload": format!("buy {title}")}]})
    };
    let read = assert_read(
        &json!({"template_type": "carousel", "elements": [element("Figs"), element("Plums")]}),
        "Figs – Fresh\nBuy\nPlums – Fresh\nBuy",
        &[("Buy", "buy Figs"), ("Buy", "buy Plums")],
    );
    assert_eq!(
        media(&read),
        [
            ("image", "https://i.example/Figs.png", "Figs"),
            ("link", "https://s.example/Figs", "Figs"),
            ("image", "https://i.example/Plums.png", "Plums"),
            ("link", "https://s.example/Plums", "Plums"),
        ]
    );
    assert_read(
        &json!({"template_type": "list", "elements": [{"title": "One", "subtitle": "First"}, {"title": "Two"}],
            "buttons": [{"title": "More", "type": "postback", "payload": "more"}]}),
        "One – First\nTwo\nMore",
        &[("More", "more")],
    );
    let read = assert_read(
        &json!({"template_type": "articleTemplate", "elements": [{"title": "Reset", "description": "- Open\n- Press",
            "icon": "data:image/svg+xml;base64,AAAA", "createdOn": "Created: May",
            "button": {"title": "Show", "type": "url", "url": "https://k.example/1"}}], "seeMoreTitle": "Show more"}),
        "Reset – - Open - Press\nShow: https://k.example/1",
        &[],
    );
    assert_eq!(media(&read), [("link", "https://k.example/1", "Show")]);
}

#[test]
fn lists_tell_their_values() {
    assert_read(
        &json!({"template_type": "listView", "text": "Recent", "heading": "Transactions", "seeMore": true,
            "elements": [{"title": "Fuel", "subtitle": "17 June", "value": "$35.88",
                "default_action": {"title": "fuel order", "type": "postback"}}],
            "buttons": [{"title": "See more", "type": "postback", "payload": "more"}],
            "moreData": {"Tab1": [{"title": "Hidden"}]}}),
        "Recent\nTransactions\nFuel – 17 June – $35.88\nSee more",
        &[("Fuel", "fuel order"), ("See more", "more")],
    );
    assert_read(
        &json!({"template_type": "listWidget", "title": "Accounts", "description": "Yours",
            "headerOptions": {"type": "text", "text": "All"},
            "elements": [{"title": "Savings", "subtitle": "Joint", "value": {"type": "text", "text": "$ 5"},
                "image": {"image_type": "image", "image_src": "https://i.example/s.png"},
                "details": [{"image": {"image_src": "https://i.example/d.png"}, "description": "Aug 3"}],
                "default_action": {"type": "postback", "payload": "open savings"},
                "buttons": [{"type": "postback", "title": "Close", "payload": "close"}]},
              {"title": "Menu", "value": {"type": "menu", "menu": [
                {"type": "postback", "title": "Rename", "payload": "rename"}]}}]}),
        "Accounts\nYours\nAll\nSavings – Joint – $ 5\nAug 3\nClose\nMenu\nRename",
        &[("Savings", "open savings"), ("Close", "close"), ("Rename", "rename")],
    );
    assert_read(
        &json!({"template_type": "tableList", "title": "Comics", "description": "Inc.",
            "elements": [{"sectionHeader": "Heroes", "sectionHeaderDesc": "A book", "rowItems": [
                {"title": {"type": "url", "url": {"link": "https://m.example", "title": "Marvel", "subtitle": "Cosmic"}},
                 "value": {"type": "text", "text": "$ 7"}, "bgcolor": "#fff"},
                {"title": {"type": "text", "text": {"title": "Iron", "subtitle": "Suit"}},
                 "value": {"type": "url", "url": {"link": "https://m.example/i", "title": "more"}}}]}]}),
        "Comics\nInc.\nHeroes – A book\nMarvel – Cosmic – $ 7\nIron – Suit – more",
        &[],
    );
    assert_read(
        &json!({"template_type": "advancedListTemplate", "title": "Main", "description": "About", "listItems": [
            {"title": "Plain", "description": "Words", "icon": "https://i.example/i.svg"},
            {"title": "Pick", "headerOptions": [{"type": "dropdown", "dropdownOptions": [
                {"title": "One", "type": "postback", "payload": "1"}]}]},
            {"title": "Ask", "view": "options", "optionsData": [{"type": "radio", "label": "Yes", "value": "y"}],
             "headerOptions": [{"type": "text", "value": "20$"}],
             "textInformation": [{"title": "WebEx", "type": "web_url", "url": "https://w.example"}],
             "buttons": [{"type": "postback", "title": "Confirm", "payload": "ok"}]}]}),
        "Main\nAbout\nPlain – Words\nPick\nOne\nAsk\n20$\nWebEx: https://w.example\nYes\nConfirm",
        &[("One", "1"), ("Yes", "y"), ("Confirm", "ok")],
    );
    assert_read(
        &json!({"template_type": "advancedMultiListTemplate", "listItems": [{"title": "Created", "subListItems": [
            {"title": "INC1", "description": "Low", "textInformation": [{"title": "Printer"}],
             "buttons": [{"type": "url", "title": "View", "url": "https://v.example"}]}]}]}),
        "Created\nINC1 – Low\nPrinter\nView: https://v.example",
        &[],
    );
    assert_read(
        &json!({"template_type": "cardTemplate", "cards": [{
            "cardHeading": {"title": "Meeting", "description": "Weekly", "headerStyles": {"color": "#fff"}},
            "cardDescription": [{"title": "9:00", "icon": "x"}, {"title": "WebEx"}],
            "type": "postback", "default_action": {"title": "Card", "payload": "card_1"},
            "buttons": [{"title": "Join", "type": "postback", "payload": "join"}]}]}),
        "Meeting – Weekly\n9:00\nWebEx\nJoin",
        &[("Meeting – Weekly", "card_1"), ("Join", "join")],
    );
    assert_read(
        &json!({"template_type": "checkListTemplate", "title": "Lists", "elements": [{
            "title": "Tasks", "taskProgress": "70%", "subInformation": [{"title": "Total:", "value": "3"}],
            "subElements": [{"title": "Books", "values": [{"title": "Status", "value": "Done"}],
                "default_action": {"type": "postback", "title": "Books", "payload": "books"}}]}]}),
        "Lists\nTasks – 70%\nBooks\nStatus – Done\nTotal: – 3",
        &[("Books", "books")],
    );
}

#[test]
fn tables_give_rows() {
    assert_read(
        &json!({"template_type": "table", "text": "Staff", "columns": [["No", "center"], ["Name"], ["Paid", "right"]],
            "elements": [{"Values": ["1", "Ada", 1000]}, {"Values": ["2", "", false]}]}),
        "Staff\nNo | Name | Paid\n1 | Ada | 1000\n2 |  | false",
        &[],
    );
    assert_read(
        &json!({"template_type": "custom_table", "columns": [["Name"], ["Pay"]], "elements": [
            {"Values": [{"title": "Ada"}, "10"]}, {"Values": [{"text": "Bob"}, {"value": "20"}]}]}),
        "Name | Pay\nAda | 10\nBob | 20",
        &[],
    );
    let read = assert_read(
        &json!({"template_type": "custom_table", "text": "Staff", "columns": [["Name"], ["Site"], ["Pay"]],
            "elements": [{"Values": [["Ada", "text"],
                ["Page", "button", {"type": "web_url", "title": "click", "url": "https://p.example"}],
                ["10", "button", {"type": "postback", "title": "click", "payload": "id1"}]]}]}),
        "Staff\nName | Site | Pay\nAda | Page | 10",
        &[("10", "id1")],
    );
    assert_eq!(media(&read), [("link", "https://p.example", "Page")]);
    assert_read(
        &json!({"template_type": "table", "text": "Spent", "data": {
            "headers": [{"title": "What", "percentage": 70}, {"title": "Amount"}],
            "rows": [["Food", "$12.00"], ["---"], ["Fuel", "$20.00"]]}}),
        "Spent\nWhat | Amount\nFood | $12.00\nFuel | $20.00",
        &[],
    );
    assert_read(
        &json!({"template_type": "mini_table", "layout": "horizontal", "text": "Accounts", "elements": [
            {"primary": [["Current"], ["300", "right"]], "additional": [["CA1", "150"], ["CA2", "150"]]},
            {"primary": [["Savings"], ["200", "right"]], "additional": []}]}),
        "Accounts\nCurrent | 300\nCA1 | 150\nCA2 | 150\nSavings | 200",
        &[],
    );
}

#[test]
fn charts_give_rows() {
    assert_read(
        &json!({"template_type": "piechart", "pie_type": "regular", "text": "Travel", "speech_hint": "spoken",
            "elements": [{"title": "Hotels", "value": "568.10", "displayValue": "$ 568"}, {"title": "Food", "value": 3}]}),
        "Travel\nHotels – $ 568\nFood – 3",
        &[],
    );
    for kind in ["barchart", "linechart"] {
        assert_read(
            &json!({"template_type": kind, "text": "Report", "X_axis": ["Jan", "Feb"], "headers": ["a", "b", "c"],
                "elements": [{"title": "Ada", "values": [10, 5], "displayValues": ["10 ml", "5 ml"]}]}),
            "Report\nJan | Feb\nAda | 10 ml | 5 ml",
            &[],
        );
        assert_read(
            &json!({"template_type": kind, "text": "Report", "headers": ["date", "Travel"],
                "elements": [{"title": "JAN 01", "values": [1000]}]}),
            "Report\ndate | Travel\nJAN 01 | 1000",
            &[],
        );
    }
}

#[test]
fn forms_and_pickers_tell_their_prompts() {
    assert_read(
        &json!({"template_type": "form_template", "heading": "Fill in", "formFields": [
            {"type": "password", "label": "Password", "placeholder": "Enter it", "fieldButton": {"title": "Ok"}}]}),
        "Fill in\nPassword",
        &[],
    );
    for kind in ["dateTemplate", "daterange", "clockTemplate"] {
        assert_read(
            &json!({"template_type": kind, "text": "display", "title": "Pick a day", "text_message": "When?",
                "format": "MM-DD-YYYY"}),
            "When?\nPick a day",
            &[],
        );
    }
    assert_read(
        &json!({"template_type": "otpValidationTemplate", "title": "Enter OTP", "description": "Four digits",
            "mobileNumber": "+91***61", "pinLength": 4, "otpButtons": [{"title": "Submit", "type": "submit"},
                {"title": "Resend", "type": "resend", "payload": "resend"}]}),
        "Enter OTP\nFour digits\n+91***61\nSubmit\nResend",
        &[("Submit", "Submit"), ("Resend", "resend")],
    );
    assert_read(
        &json!({"template_type": "resetPinTemplate", "title": "Reset", "enterPinTitle": "New PIN",
            "reEnterPinTitle": "Again", "warningMessage": "No match", "resetButtons": [{"title": "Go"}]}),
        "Reset\nNew PIN\nAgain\nGo",
        &[("Go", "Go")],
    );
    let read = template(&json!({"formData": {"formLink": "https://f.example/?h=1", "renderType": "inline"}}));
    assert_eq!(read.text, "https://f.example/?h=1");
    assert_eq!(media(&read), [("link", "https://f.example/?h=1", "-")]);
}

#[test]
fn search_and_answers_tell_what_was_found() {
    let read = template(&json!({"template_type": "search",
        "graph_answer": {"payload": {"center_panel": {"type": "paragraph_snippet", "data": [
            {"snippet_title": "*Which funds?*", "snippet_content": " \n Equity funds", "url": "https://b.example/f",
             "score": "86%", "source": "Plans"}]}}},
        "results": {"web": {"data": [{"page_title": "Plans", "page_url": "https://b.example/p", "score": 240.6,
            "page_preview": "<span>types</span>", "page_image_url": "x"}]}}}));
    assert_eq!(read.text, "*Which funds?* – Equity funds\nPlans");
    assert_eq!(
        media(&read),
        [("link", "https://b.example/f", "*Which funds?*"), ("link", "https://b.example/p", "Plans")]
    );
    let read = template(
        &json!({"template_type": "answerTemplate", "answer_payload": {"center_panel": {"data": [
        {"snippet_title": "", "snippet_type": "generative_model", "snippet_content": [
            {"answer_fragment": "It left.", "sources": [{"title": "Log", "doc_id": "d", "url": "https://l.example"}]},
            {"answer_fragment": "It arrives today.", "sources": []}]}]}}}),
    );
    assert_eq!(read.text, "It left.\nLog\nIt arrives today.");
    assert_eq!(media(&read), [("link", "https://l.example", "Log")]);
}

#[test]
fn short_templates_have_their_text() {
    for kind in ["live_agent", "SYSTEM", "wait_for_response", "session_end", "proactive", "welcome_template"]
    {
        assert_read(&json!({"template_type": kind, "text": "One moment"}), "One moment", &[]);
    }
    assert_read(&json!({"template_type": "welcome_template", "welcome_message": "Hi!"}), "Hi!", &[]);
    assert_read(
        &json!({"template_type": "custom", "custom_type": "agent_typing", "data": {"on": true}}),
        "",
        &[],
    );
}

#[test]
fn unknown_template_tells_its_lists() {
    assert_read(
        &json!({"template_type": "ourAccounts", "title": "Yours", "rowStyles": {"title": "no"},
            "accounts": [{"name": "Savings", "description": "Joint", "number": 5}, 7, "x"],
            "footer_card": {"title": "Total", "buttons": [{"title": "Pay", "payload": "pay"}]}}),
        "Yours\nSavings – Joint\nTotal\nPay",
        &[("Pay", "pay")],
    );
}

#[test]
fn unknown_template_tells_values_of_unknown_names() {
    assert_read(
        &json!({"template_type": "contactCardTemplate", "title": "Contacts", "cards": [
            {"userIcon": "https://i.example/u.png", "userName": "Ada", "userContactNumber": "+49 1", "cardType": "x"}]}),
        "Contacts\n+49 1 – Ada",
        &[],
    );
    assert_read(
        &json!({"template_type": "orders", "orders": [
            {"id": "o-1", "order": 4711, "status": "sent", "color": "#fff", "isOpen": true}]}),
        "4711 – sent",
        &[],
    );
    assert_read(
        &json!({"template_type": "order", "order": {"number": "4711", "status": "sent"}}),
        "4711 – sent",
        &[],
    );
    assert_read(
        &json!({"template_type": "hint", "hint": "Look &amp; see", "view": "box"}),
        "Look & see",
        &[],
    );
    assert_read(
        &json!({"template_type": "bankingFeedbackTemplate", "heading": "Happy?",
            "experienceContent": [{"id": "1", "value": "Very"}], "feedbackListHeading": "Why?",
            "feedbackList": [{"id": "1", "value": "Speed"}], "buttons": [{"label": "Confirm"}]}),
        "Happy?\nConfirm\nVery\nSpeed",
        &[("Confirm", "Confirm")],
    );
    assert_read(&json!({"template_type": "dateTemplate", "format": "DD", "startDate": "1"}), "", &[]);
}

#[test]
fn readable_body_is_taken_if_it_tells_all() {
    let buttons = |text: Value| {
        json!({"template_type": "button", "text": text, "buttons": [
            {"type": "postback", "title": "Red", "payload": "r"}, {"type": "postback", "title": "Blue", "payload": "b"}]})
    };
    let body = "Which colour? \r\n\r\n a) Red \r\n b) Blue \r\n";
    for text in [json!("Which colour?"), json!("Which colour? \n"), json!(null), json!("")] {
        let read = sent(&buttons(text), body);
        assert_eq!(read.text, body);
        assert_eq!(pairs(&read), [("Red", "r"), ("Blue", "b")]);
    }
    for (text, body, expected) in [
        ("Which colour?", "Which colour? Tell me", "Which colour?\nRed\nBlue"),
        ("Which colour?", "Choose: a) Red b) Blue", "Which colour?\nRed\nBlue"),
        ("", "Choose: Red or so", "Choose: Red or so\nRed\nBlue"),
        ("", " ", "Red\nBlue"),
    ] {
        assert_eq!(sent(&buttons(json!(text)), body).text, expected, "{text} {body}");
    }
    let other = json!({"template_type": "ours", "text": "Pick one"});
    assert_eq!(sent(&other, "Pick one: &lt;a&gt;").text, "Pick one: <a>");
    let envelope =
        r#"{"type":"template","payload":{"template_type":"button","text":"Choose &quot;one&quot;"}}"#;
    assert_eq!(sent(&buttons(json!("")), envelope).text, "Choose \"one\"\nRed\nBlue");
}

#[test]
fn unknown_template_without_words_tells_its_address() {
    let frame = assert_read(
        &json!({"template_type": "iframe", "formUrl": "https://forms.example/1", "height": "300px"}),
        "https://forms.example/1",
        &[],
    );
    assert_eq!(media(&frame), [("link", "https://forms.example/1", "-")]);
    assert_read(
        &json!({"template_type": "other", "title": "Look", "pageUrl": "https://a.example"}),
        "Look",
        &[],
    );
}
